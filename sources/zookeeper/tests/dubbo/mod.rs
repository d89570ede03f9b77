//! What Dubbo's providers write, and a source that reads it.

use std::{sync::Arc, time::Duration};

use diolkos_source_dubbo::{Discovery, Options, Variants};
use diolkos_source_zookeeper::Config;
use url::form_urlencoded::byte_serialize;

/// The name of a provider's node: its URL, encoded as Java does it. Parameters follow in `more`,
/// such as `&weight=5`.
pub(crate) fn provider(interface: &str, address: &str, more: &str) -> String {
    let url = format!(
        "dubbo://{address}/{interface}?application=shop&deprecated=false&dubbo=2.0.2&dynamic=true\
         &generic=false&interface={interface}&methods=add,sayHello&release=3.3.5&side=provider\
         &timestamp=1795252150853{more}"
    );
    byte_serialize(url.as_bytes()).collect()
}

/// The settings for servers, both ways to register, and sessions of 2 s.
pub(crate) fn config(registry: impl Into<Arc<str>>, servers: Vec<String>) -> Config {
    Config {
        client: diolkos_zk::Config {
            servers,
            chroot: String::new(),
            session_timeout: Duration::from_secs(2),
            connect_timeout: Duration::from_secs(2),
            digest: None,
            tls: None,
            frame_limit: 1024 * 1024,
        },
        root: "/dubbo".to_owned(),
        applications: "/services".to_owned(),
        dubbo: Options {
            registry: registry.into(),
            variants: Variants::Labels,
            discovery: Discovery::Both,
            dubbo_protocol: "dubbo".into(),
            aeraki: false,
        },
        select: Arc::new(|_| true),
    }
}
