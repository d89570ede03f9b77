//! Addresses of members, and connections to them.

use std::fmt;

use diolkos_net::{GrpcAddress, GrpcError, TlsConfig};
use diolkos_source_api::SourceError;
use tonic::transport::Channel;
use url::Url;

/// Where etcd listens by default.
const PORT: u16 = 2379;

/// The address of a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Member(GrpcAddress);

impl Member {
    /// Reads `http://HOST[:PORT]` or `https://HOST[:PORT]`.
    pub(crate) fn parse(text: &str) -> Result<Self, SourceError> {
        let wrong = |what| SourceError::Config(format!("`{text}` {what}"));
        let url = Url::parse(text)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https"))
            .ok_or_else(|| {
                wrong("is not an address: write http://HOST:PORT or https://HOST:PORT")
            })?;
        if !url.username().is_empty() || url.password().is_some() {
            // The text is not repeated: it holds the password.
            let what = "an address must not hold a user or password: set `auth`";
            return Err(SourceError::Config(what.into()));
        }
        if url.path() != "/" || url.query().is_some() {
            return Err(wrong("has a path, and etcd's API is always at the root"));
        }
        let host = url.host().ok_or_else(|| wrong("names no host"))?;
        // The URL's own default would be that of the Web.
        let port = explicit_port(text, &url).unwrap_or(PORT);
        let tls = url.scheme() == "https";
        Ok(Self(GrpcAddress::new(host.to_owned(), port, tls)))
    }

    pub(crate) fn speaks_tls(&self) -> bool {
        self.0.speaks_tls()
    }

    /// Connects, with the TLS files as they are now.
    pub(crate) async fn connect(&self, tls: &TlsConfig) -> Result<Channel, SourceError> {
        self.0.connect(tls).await.map_err(|error| match error {
            GrpcError::Config(what) => SourceError::Config(what),
            GrpcError::Connect(what) => SourceError::Transport(what),
        })
    }
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The port, also where it is the scheme's default, which [`Url::port`] hides.
fn explicit_port(text: &str, url: &Url) -> Option<u16> {
    let hidden = || {
        let default = url.port_or_known_default()?;
        let text = text.trim_end_matches('/');
        text.ends_with(&format!(":{default}")).then_some(default)
    };
    url.port().or_else(hidden)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (text, shown) in [
            ("http://10.0.0.1:2379", "http://10.0.0.1:2379"),
            ("http://10.0.0.1", "http://10.0.0.1:2379"),
            ("https://etcd.example.org/", "https://etcd.example.org:2379"),
            (
                "https://etcd.example.org:443",
                "https://etcd.example.org:443",
            ),
            ("http://[fd00::1]:80/", "http://[fd00::1]:80"),
            ("http://[fd00::80]", "http://[fd00::80]:2379"),
        ] {
            let member = Member::parse(text).unwrap();
            assert_eq!(member.to_string(), shown);
        }
    }

    #[test]
    fn what_is_no_address_is_told_and_a_password_is_not() {
        for (text, told) in [
            ("10.0.0.1:2379", "`10.0.0.1:2379` is not an address"),
            ("etcd:2379", "`etcd:2379` is not an address"),
            ("http://etcd:2379/v3", "`http://etcd:2379/v3` has a path"),
            ("http://root:secret@etcd:2379", "set `auth`"),
        ] {
            let error = Member::parse(text).unwrap_err().to_string();
            assert!(error.contains(told), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
