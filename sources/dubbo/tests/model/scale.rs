//! A registry of the size that is promised.

use std::time::Instant;

use diolkos_source_dubbo::Catalog;

use crate::support::{encode, list, options};

const INTERFACES: usize = 5_000;

fn url(interface: usize, host: usize) -> String {
    encode(&format!(
        "dubbo://10.{}.{}.{host}:20880/com.example.Service{interface}?anyhost=true&application=app-{}&deprecated=false\
        &dubbo=2.0.2&dynamic=true&env=prod&generic=false&interface=com.example.Service{interface}&methods=add,say,list\
        &pid=4711&region=cn-hz&release=3.3.5&revision=1.0.{interface}&side=provider&timestamp=179525215{interface}&version=1.0.0",
        interface / 250,
        interface % 250,
        interface % 100,
    ))
}

fn name(interface: usize) -> String {
    format!("com.example.Service{interface}")
}

/// One change costs one service, whatever else there is.
#[test]
#[expect(clippy::print_stderr, reason = "figures, for `--nocapture`")]
fn one_change_of_a_large_registry_tells_one_service() {
    let start = Instant::now();
    let mut catalog = Catalog::new(options());
    for interface in 0..INTERFACES {
        let urls = (0..4).map(|host| url(interface, host)).collect();
        catalog.set_children(&list(&name(interface)), urls);
    }
    let built = start.elapsed();
    let services = catalog.snapshot();
    let snapshot = start.elapsed() - built;
    assert_eq!(services.len(), INTERFACES);
    assert!(services.iter().all(|service| service.instances.len() == 4));
    catalog.add_child(&list(&name(7)), &url(7, 5));
    let start = Instant::now();
    assert_eq!(catalog.take_changes().len(), 1);
    eprintln!(
        "built {built:?}, snapshot {snapshot:?}, one change {:?}",
        start.elapsed()
    );
}
