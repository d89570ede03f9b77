//! Many services.

use std::time::{Duration, Instant};

use diolkos_nacos::ServiceInfo;

use crate::support::{directory, host, info};

fn many() -> Vec<ServiceInfo> {
    let hosts = |service: u32| {
        (0..10_u32).map(move |number| {
            let ip = format!("10.{}.{}.{number}", service / 256, service % 256);
            let version = if number < 5 { "1" } else { "2" };
            host(
                &ip,
                8080,
                &[("version", version), ("env", "prod"), ("team", "shop")],
            )
        })
    };
    (0..5_000)
        .map(|number| info(&format!("web-{number}"), &hosts(number).collect::<Vec<_>>()))
        .collect()
}

/// Five thousand services with ten instances each. The limits are far off, for slow machines.
#[test]
fn five_thousand_services() {
    let infos = many();
    let mut directory = directory();
    let mut timed = |what: &str, limit: Duration, again: bool| {
        let start = Instant::now();
        infos.iter().for_each(|info| directory.set(info, None));
        let changes = directory.take_changes();
        let took = start.elapsed();
        assert_eq!(changes.len(), if again { 0 } else { 5_000 });
        assert!(took < limit, "{what}: {took:?}");
    };
    timed("first", Duration::from_secs(20), false);
    timed("the same again", Duration::from_secs(5), true);
    assert_eq!(directory.snapshot().len(), 5_000);
}
