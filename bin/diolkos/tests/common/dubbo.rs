//! Nodes as Dubbo writes them.

#![allow(dead_code, unreachable_pub)] // each test file uses its part

/// A provider of an interface, as Dubbo 3.3 registers it.
#[derive(Clone, Debug)]
pub struct Provider {
    protocol: String,
    /// `host:port`.
    address: String,
    interface: String,
    /// In the order in which Dubbo writes them: by name.
    parameters: std::collections::BTreeMap<String, String>,
}

impl Provider {
    /// A provider that nobody has set up in any way.
    pub fn new(interface: &str, address: &str) -> Self {
        let parameters = [
            ("application", "demo-provider"),
            ("deprecated", "false"),
            ("dubbo", "2.0.2"),
            ("dynamic", "true"),
            ("generic", "false"),
            ("interface", interface),
            ("methods", "add,sayHello"),
            ("prefer.serialization", "hessian2,fastjson2"),
            ("release", "3.3.5"),
            ("side", "provider"),
            ("timestamp", "1795252150853"),
        ];
        let parameters = parameters.map(|(key, value)| (key.to_owned(), value.to_owned()));
        Self {
            protocol: "dubbo".to_owned(),
            address: address.to_owned(),
            interface: interface.to_owned(),
            parameters: parameters.into(),
        }
    }

    /// With another protocol than Dubbo's own.
    #[must_use]
    pub fn protocol(mut self, protocol: &str) -> Self {
        protocol.clone_into(&mut self.protocol);
        self
    }

    /// With one more parameter, or another value of one.
    #[must_use]
    pub fn with(mut self, key: &str, value: &str) -> Self {
        self.parameters.insert(key.to_owned(), value.to_owned());
        self
    }

    /// The URL, whose values are encoded where they must be.
    pub fn url(&self) -> String {
        let Self {
            protocol,
            address,
            interface,
            parameters,
        } = self;
        let parameters: Vec<String> = parameters
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        format!(
            "{protocol}://{address}/{interface}?{}",
            parameters.join("&")
        )
    }

    /// The path of the node.
    pub fn path(&self) -> String {
        self.path_in("/dubbo")
    }

    /// The path of the node below another root.
    pub fn path_in(&self, root: &str) -> String {
        format!(
            "{root}/{}/providers/{}",
            self.interface,
            encode(&self.url())
        )
    }
}

/// As Java's `URLEncoder` does it.
pub fn encode(url: &str) -> String {
    let mut text = String::new();
    for byte in url.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'*' | b'_' => {
                text.push(byte.into());
            }
            _ => text += &format!("%{byte:02X}"),
        }
    }
    text
}
