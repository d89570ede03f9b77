//! The URLs that Dubbo registers.

use std::{borrow::Cow, collections::BTreeMap};

/// The parameters of a URL or a record: sorted, each name once.
pub type Parameters = BTreeMap<String, String>;

/// A URL that names a provider or a rule, taken apart and decoded.
///
/// Registries that keep the parts (Nacos has the parameters as metadata) fill it in themselves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProviderUrl {
    /// What the provider speaks (`dubbo`, `tri`, …), or what the URL is (`override`, `consumer`).
    pub protocol: String,
    /// An IP address (IPv6 with or without brackets) or a host name; may be empty.
    pub host: String,
    /// 0 if there is none. Wider than a port, so that 70000 can be reported.
    pub port: u32,
    /// Without the first slash: usually the interface.
    pub path: String,
    /// Those after the question mark.
    pub parameters: Parameters,
}

/// Why a node's name is no URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// There is no `://`, or nothing before it.
    #[error("it has no protocol")]
    NoProtocol,
    /// Nothing stands where the host belongs.
    #[error("it has no host")]
    NoHost,
    /// What follows the last colon of the host is no number.
    #[error("its port is not a number")]
    Port,
}

impl ProviderUrl {
    /// Reads the name of a node: a URL, percent-encoded as a whole.
    ///
    /// Values that are encoded once more, as Dubbo does with those that are URLs or lists
    /// themselves, are decoded again. An escape that stands for no character and bytes that are
    /// no UTF-8 do no harm: the first stays as it is, the others become U+FFFD.
    ///
    /// # Errors
    /// If it has no protocol, no host, or a port that is no number.
    pub fn parse(name: &str) -> Result<Self, UrlError> {
        // A name is what Java's `URLEncoder` made: a form, in which a plus is a space.
        let url = decode(&name.replace('+', " ")).into_owned();
        let (protocol, rest) = url.split_once("://").ok_or(UrlError::NoProtocol)?;
        if protocol.is_empty() || protocol.contains(['/', '?', ' ']) {
            return Err(UrlError::NoProtocol);
        }
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = place.split_once('/').unwrap_or((place, ""));
        let (host, port) = host_and_port(authority)?;
        Ok(Self {
            protocol: protocol.to_lowercase(),
            host: host.to_owned(),
            port,
            path: path.to_owned(),
            parameters: parameters(query),
        })
    }

    /// The value of a parameter; `None` where it is missing or empty. Dubbo 2.6 writes what a
    /// provider sets for all of its services with `default.` in front: that counts where the
    /// service says nothing.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        get(&self.parameters, name)
    }
}

/// See [`ProviderUrl::get`].
pub(crate) fn get<'a>(parameters: &'a Parameters, name: &str) -> Option<&'a str> {
    let own = |name: &str| parameters.get(name).filter(|value| !value.is_empty());
    own(name)
        .or_else(|| own(&format!("default.{name}")))
        .map(String::as_str)
}

/// Credentials before an `@` are of no interest. Like Dubbo, takes the last colon as the one
/// before the port, so that IPv6 addresses may be written without brackets.
fn host_and_port(authority: &str) -> Result<(&str, u32), UrlError> {
    let address = authority
        .rsplit_once('@')
        .map_or(authority, |(_, address)| address);
    let (host, port) = match address.rsplit_once(':') {
        // The colon is inside of `[::1]`.
        Some((_, tail)) if tail.ends_with(']') => (address, 0),
        Some((host, "")) => (host, 0),
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => {
            (host, port.parse().unwrap_or(u32::MAX))
        }
        Some(_) => return Err(UrlError::Port),
        None => (address, 0),
    };
    if host.is_empty() {
        return Err(UrlError::NoHost);
    }
    Ok((host, port))
}

/// `a=1&b=2`. A name without `=` has an empty value; of one name twice, the last counts.
fn parameters(query: &str) -> Parameters {
    query
        .split('&')
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .filter(|(name, _)| !name.is_empty())
        .map(|(name, value)| (decode(name).into_owned(), decode(value).into_owned()))
        .collect()
}

/// Decodes percent escapes, once: from the name of a node to what it stands for.
#[must_use]
pub fn decode(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return text.into();
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        match (first, tail) {
            (b'%', [high, low, after @ ..]) => match (hex(*high), hex(*low)) {
                (Some(high), Some(low)) => {
                    bytes.push(high << 4 | low);
                    rest = after;
                }
                _ => bytes.push(b'%'),
            },
            _ => bytes.push(*first),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned().into()
}

fn hex(digit: u8) -> Option<u8> {
    // The digit of a base of 16 fits.
    char::from(digit).to_digit(16).map(|value| value as u8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn url(name: &str) -> ProviderUrl {
        ProviderUrl::parse(name).unwrap()
    }

    #[test]
    fn a_name_as_dubbo_writes_it() {
        let read = url(
            "dubbo%3A%2F%2F10.77.0.1%3A20880%2Forg.demo.Greeter%3Fapplication%3Ddemo%26methods%3Dadd%2Csay%26version%3D1.0.0",
        );
        let expected = ProviderUrl {
            protocol: "dubbo".into(),
            host: "10.77.0.1".into(),
            port: 20880,
            path: "org.demo.Greeter".into(),
            parameters: [
                ("application", "demo"),
                ("methods", "add,say"),
                ("version", "1.0.0"),
            ]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        };
        assert_eq!(read, expected);
    }

    #[test]
    fn hosts_and_ports() {
        for (authority, host, port) in [
            ("10.0.0.1:80", "10.0.0.1", 80),
            ("10.0.0.1", "10.0.0.1", 0),
            ("10.0.0.1:", "10.0.0.1", 0),
            ("web.example.org:80", "web.example.org", 80),
            ("[::1]:20880", "[::1]", 20880),
            ("[fd00::1]", "[fd00::1]", 0),
            ("fd00::1:20880", "fd00::1", 20880),
            ("user:p@ss@10.0.0.1:80", "10.0.0.1", 80),
            ("10.0.0.1:70000", "10.0.0.1", 70000),
            ("10.0.0.1:99999999999", "10.0.0.1", u32::MAX),
        ] {
            let read = url(&format!("tri://{authority}/a.B?x=1"));
            assert_eq!(
                (&*read.host, read.port, &*read.path),
                (host, port, "a.B"),
                "{authority}"
            );
        }
    }

    #[test]
    fn d14_values_are_decoded_and_empty_ones_kept() {
        for (query, name, value) in [
            ("a%3Db%253Dc", "a", "b=c"),
            ("a%3Db%3Dc", "a", "b=c"),
            ("a%3D%2525", "a", "%"),
            ("a%3D100%25", "a", "100%"),
            ("a%3D%25zz", "a", "%zz"),
            ("a%3Dx%252Fy", "a", "x/y"),
            ("a%3Dx%2Cy", "a", "x,y"),
            ("a%3Dx+y", "a", "x y"),
            ("a%3Dx%2By", "a", "x+y"),
            ("a%3D%E4%BD%A0", "a", "你"),
            ("a%3D%FF", "a", "\u{FFFD}"),
            ("a%3D", "a", ""),
            ("a", "a", ""),
            ("a%3D1%26a%3D2", "a", "2"),
        ] {
            let read = url(&format!("dubbo%3A%2F%2Fh%3A1%2Fa.B%3F{query}"));
            assert_eq!(read.parameters[name], value, "{query}");
        }
        let read = url("dubbo://h:1/a.B?default.weight=5&group=&default.group=g&version=2");
        assert_eq!(read.get("weight"), Some("5"));
        assert_eq!(read.get("group"), Some("g"));
        assert_eq!(read.get("version"), Some("2"));
        assert_eq!(read.get("none"), None);
    }

    #[test]
    fn what_is_no_url() {
        for (name, why) in [
            ("", UrlError::NoProtocol),
            ("10.0.0.1:80", UrlError::NoProtocol),
            ("://10.0.0.1", UrlError::NoProtocol),
            ("/a?b://c", UrlError::NoProtocol),
            ("dubbo://", UrlError::NoHost),
            ("dubbo://:80/a.B", UrlError::NoHost),
            ("dubbo:///a.B", UrlError::NoHost),
            ("dubbo://h:port/a.B", UrlError::Port),
        ] {
            assert_eq!(ProviderUrl::parse(name), Err(why), "{name}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(name in any::<String>(), odd in "(dubbo://|%3A|%|[0-9a-f:@/?&=\\[\\]]){0,40}") {
            let read = [ProviderUrl::parse(&name), ProviderUrl::parse(&odd)];
            prop_assert!(read.iter().flatten().all(|url| !url.host.is_empty()));
        }
    }
}
