//! The way from a client to a server, which can be shut.

use anyhow::Result;

use super::Nacos;
use crate::proxy::TcpProxy;

/// A proxy for HTTP and one for gRPC in front of a Nacos server.
#[derive(Debug)]
pub struct NacosDoor {
    http: TcpProxy,
    grpc: TcpProxy,
}

impl NacosDoor {
    pub(super) async fn start(server: &Nacos) -> Result<Self> {
        let one = TcpProxy::start(server.http_address()).await?;
        let other = TcpProxy::start(server.http_address()).await?;
        // Clients add a number to the port of HTTP to come to that of gRPC.
        let (http, grpc) = if one.address() < other.address() {
            (one, other)
        } else {
            (other, one)
        };
        grpc.redirect(server.grpc_address());
        Ok(Self { http, grpc })
    }

    /// The base URL of the HTTP API, `http://127.0.0.1:PORT/nacos`.
    pub fn url(&self) -> String {
        format!("http://{}/nacos", self.http.address())
    }

    /// What is added to the port of the URL to come to that of gRPC.
    pub fn grpc_offset(&self) -> u16 {
        self.grpc.address().port() - self.http.address().port()
    }

    /// The proxy that carries HTTP.
    pub fn http(&self) -> &TcpProxy {
        &self.http
    }

    /// The proxy that carries gRPC.
    pub fn grpc(&self) -> &TcpProxy {
        &self.grpc
    }

    /// Resets all connections. New ones are accepted.
    pub fn cut(&self) {
        self.http.cut();
        self.grpc.cut();
    }

    /// As [`TcpProxy::hang`], of both.
    pub fn hang(&self, on: bool) {
        self.http.hang(on);
        self.grpc.hang(on);
    }

    /// New connections go to another server; see [`cut`](Self::cut) for the open ones.
    pub fn redirect(&self, server: &Nacos) {
        self.http.redirect(server.http_address());
        self.grpc.redirect(server.grpc_address());
    }

    /// From now on new connections are refused, and those that are open break.
    ///
    /// # Errors
    /// As [`TcpProxy::refuse`].
    pub async fn outage(&mut self) -> Result<()> {
        self.http.interrupt().await?;
        self.grpc.interrupt().await
    }

    /// Ends what [`outage`](Self::outage) and [`hang`](Self::hang) began.
    ///
    /// # Errors
    /// As [`TcpProxy::refuse`].
    pub async fn recover(&mut self) -> Result<()> {
        self.grpc.restore().await?;
        self.http.restore().await
    }
}
