//! Addresses of members, and connections to them.

use std::{error::Error as StdError, fmt, io, sync::Arc, time::Duration};

use diolkos_net::TlsConfig;
use diolkos_source_api::SourceError;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, rustls::pki_types::ServerName};
use tokio_util::either::Either;
use tonic::transport::{Channel, Endpoint, Uri};
use url::{Host, Url};

/// How long the TCP and TLS handshakes may take before the next member is tried.
const CONNECT: Duration = Duration::from_secs(3);
/// Where etcd listens by default.
const PORT: u16 = 2379;

/// The address of a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    host: Host,
    port: u16,
    tls: bool,
}

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
        Ok(Self {
            host: host.to_owned(),
            // The URL's own default would be that of the Web.
            port: explicit_port(text, &url).unwrap_or(PORT),
            tls: url.scheme() == "https",
        })
    }

    pub(crate) fn speaks_tls(&self) -> bool {
        self.tls
    }

    fn authority(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// Connects, with the TLS files as they are now.
    pub(crate) async fn connect(&self, tls: &TlsConfig) -> Result<Channel, SourceError> {
        let tls = if self.tls { Some(self.tls(tls)?) } else { None };
        let authority = self.authority();
        let connector = tower::service_fn(move |_: Uri| {
            let (authority, tls) = (authority.clone(), tls.clone());
            async move { stream(&authority, tls).await.map(TokioIo::new) }
        });
        self.endpoint()?
            .connect_with_connector(connector)
            .await
            .map_err(|error| SourceError::Transport(format!("{self}: {}", root_cause(&error))))
    }

    fn endpoint(&self) -> Result<Endpoint, SourceError> {
        let config = |error: &dyn fmt::Display| SourceError::Config(format!("{self}: {error}"));
        let origin: Uri = self.to_string().parse().map_err(|e| config(&e))?;
        // To tonic it is plain: TLS is made by the connector, from our own files.
        let plain = format!("http://{}", self.authority());
        Ok(Endpoint::from_shared(plain)
            .map_err(|e| config(&e))?
            .origin(origin)
            .connect_timeout(CONNECT))
    }

    fn tls(&self, config: &TlsConfig) -> Result<Tls, SourceError> {
        let wrong = |error: String| SourceError::Config(error);
        let name = match (&config.server_name, &self.host) {
            (Some(name), _) => ServerName::try_from(name.clone())
                .map_err(|_| wrong(format!("the TLS server name `{name}` is not a DNS name")))?,
            (None, Host::Domain(name)) => ServerName::try_from(name.clone())
                .map_err(|_| wrong(format!("the host `{name}` is not a DNS name")))?,
            (None, Host::Ipv4(ip)) => ServerName::from(std::net::IpAddr::from(*ip)),
            (None, Host::Ipv6(ip)) => ServerName::from(std::net::IpAddr::from(*ip)),
        };
        let config = config
            .client_config(&["h2"])
            .map_err(|error| wrong(error.to_string()))?;
        Ok((TlsConnector::from(Arc::new(config)), name))
    }
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.authority())
    }
}

/// How TLS is spoken, and whose certificate is to be seen.
type Tls = (TlsConnector, ServerName<'static>);

type Stream = Either<TcpStream, tokio_rustls::client::TlsStream<TcpStream>>;

async fn stream(authority: &str, tls: Option<Tls>) -> io::Result<Stream> {
    let tcp = TcpStream::connect(authority).await?;
    tcp.set_nodelay(true)?;
    Ok(match tls {
        None => Either::Left(tcp),
        Some((connector, name)) => Either::Right(connector.connect(name, tcp).await?),
    })
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

/// The innermost message. Those around it only say that a request failed.
pub(crate) fn root_cause(error: &(dyn StdError + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
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
            assert!(member.endpoint().is_ok(), "{text}");
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
