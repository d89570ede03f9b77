//! gRPC connections whose TLS is made from our own files.

use std::{error::Error as StdError, fmt, io, net::IpAddr, sync::Arc, time::Duration};

use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::either::Either;
use tonic::transport::{Channel, Endpoint, Uri};
use url::Host;

use crate::{TlsConfig, TlsError};

/// How long the TCP and TLS handshakes may take together.
const CONNECT: Duration = Duration::from_secs(3);

/// Where a gRPC server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrpcAddress {
    host: Host,
    port: u16,
    tls: bool,
}

/// There is no connection.
#[derive(Debug, thiserror::Error)]
pub enum GrpcError {
    /// The address or the TLS files cannot work.
    #[error("{0}")]
    Config(String),
    /// The server cannot be reached, or a handshake failed.
    #[error("{0}")]
    Connect(String),
}

impl From<TlsError> for GrpcError {
    fn from(error: TlsError) -> Self {
        Self::Config(error.to_string())
    }
}

impl GrpcAddress {
    /// The address of a server, and whether it speaks TLS.
    #[must_use]
    pub fn new(host: Host, port: u16, tls: bool) -> Self {
        Self { host, port, tls }
    }

    /// Whether the server speaks TLS.
    #[must_use]
    pub fn speaks_tls(&self) -> bool {
        self.tls
    }

    fn authority(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// Connects, with the TLS files as they are now. Gives up after three seconds.
    ///
    /// # Errors
    /// Names the file that is at fault, or the address that cannot be reached.
    pub async fn connect(&self, tls: &TlsConfig) -> Result<Channel, GrpcError> {
        let tls = if self.tls { Some(self.tls(tls)?) } else { None };
        let authority = self.authority();
        let connector = tower::service_fn(move |_: Uri| {
            let (authority, tls) = (authority.clone(), tls.clone());
            async move { stream(&authority, tls).await.map(TokioIo::new) }
        });
        self.endpoint()?
            .connect_with_connector(connector)
            .await
            .map_err(|error| GrpcError::Connect(format!("{self}: {}", root_cause(&error))))
    }

    fn endpoint(&self) -> Result<Endpoint, GrpcError> {
        let config = |error: &dyn fmt::Display| GrpcError::Config(format!("{self}: {error}"));
        let origin: Uri = self.to_string().parse().map_err(|e| config(&e))?;
        // To tonic it is plain: TLS is made by the connector, from our own files.
        let plain = format!("http://{}", self.authority());
        Ok(Endpoint::from_shared(plain)
            .map_err(|e| config(&e))?
            .origin(origin)
            .connect_timeout(CONNECT))
    }

    fn tls(&self, config: &TlsConfig) -> Result<Tls, GrpcError> {
        let name = match (&config.server_name, &self.host) {
            (Some(name), _) => ServerName::try_from(name.clone()).map_err(|_| {
                GrpcError::Config(format!("the TLS server name `{name}` is not a DNS name"))
            })?,
            (None, Host::Domain(name)) => ServerName::try_from(name.clone())
                .map_err(|_| GrpcError::Config(format!("the host `{name}` is not a DNS name")))?,
            (None, Host::Ipv4(ip)) => ServerName::from(IpAddr::from(*ip)),
            (None, Host::Ipv6(ip)) => ServerName::from(IpAddr::from(*ip)),
        };
        let config = config.client_config(&["h2"])?;
        Ok((TlsConnector::from(Arc::new(config)), name))
    }
}

impl fmt::Display for GrpcAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.authority())
    }
}

/// How TLS is spoken, and whose certificate is to be seen.
type Tls = (TlsConnector, ServerName<'static>);

async fn stream(
    authority: &str,
    tls: Option<Tls>,
) -> io::Result<Either<TcpStream, TlsStream<TcpStream>>> {
    let tcp = TcpStream::connect(authority).await?;
    tcp.set_nodelay(true)?;
    Ok(match tls {
        None => Either::Left(tcp),
        Some((connector, name)) => Either::Right(connector.connect(name, tcp).await?),
    })
}

/// The innermost message. Those around it only say that a request failed.
#[must_use]
pub fn root_cause(error: &(dyn StdError + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    #[test]
    fn every_kind_of_host_makes_an_endpoint() {
        let hosts = [
            (Host::Domain("etcd.example.org".into()), "etcd.example.org"),
            (Host::Ipv4(Ipv4Addr::LOCALHOST), "127.0.0.1"),
            (Host::Ipv6(Ipv6Addr::LOCALHOST), "[::1]"),
        ];
        for (host, shown) in hosts {
            for (tls, scheme) in [(false, "http"), (true, "https")] {
                let address = GrpcAddress::new(host.clone(), 443, tls);
                assert_eq!(address.to_string(), format!("{scheme}://{shown}:443"));
                assert!(address.endpoint().is_ok(), "{address}");
            }
        }
    }
}
