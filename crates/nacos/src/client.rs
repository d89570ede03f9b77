//! What connections share.

use std::{
    fmt,
    sync::{Arc, atomic::AtomicBool},
};

use diolkos_net::{GrpcAddress, HttpClient, HttpConfig, HttpError, TlsConfig};
use url::Url;

use crate::{
    ANSWER_LIMIT, Config, Connection, Error, Http, Meter, Pushes,
    auth::{Credentials, Door, Proof, Session, Subject, sign},
    connection,
    http::Endpoint,
};

/// All that is shared by connections: addresses, TLS, credentials with the current token.
#[derive(Clone)]
pub struct Client(Arc<Shared>);

struct Shared {
    servers: Vec<Server>,
    tls: TlsConfig,
    credentials: Credentials,
    meter: Arc<dyn Meter>,
}

/// One of the servers.
pub(crate) struct Server {
    pub(crate) grpc: GrpcAddress,
    pub(crate) http: HttpClient,
    session: Session,
    /// By [`Endpoint`]: whether the path of version 3 is the one that the server has.
    pub(crate) modern: [AtomicBool; Endpoint::COUNT],
}

impl Client {
    /// Checks the addresses and reads the TLS files. Connects to nothing.
    ///
    /// # Errors
    /// [`Error::Config`] with what to change.
    pub fn new(config: Config, meter: Arc<dyn Meter>) -> Result<Self, Error> {
        let Config {
            addresses,
            grpc_offset,
            auth,
            tls,
        } = config;
        if addresses.is_empty() {
            return Err(Error::Config("there is no address".into()));
        }
        let servers = addresses
            .iter()
            .map(|address| Server::new(address, grpc_offset, &tls))
            .collect::<Result<_, _>>()?;
        Ok(Self(Arc::new(Shared {
            servers,
            tls,
            credentials: Credentials::new(auth),
            meter,
        })))
    }

    /// How many servers there are.
    #[must_use]
    pub fn servers(&self) -> usize {
        self.0.servers.len()
    }

    /// The address of a server, for messages.
    ///
    /// # Panics
    /// If there is no server of this index.
    #[must_use]
    pub fn server(&self, index: usize) -> &str {
        self.at(index).http.address()
    }

    /// Connects to a server by gRPC (Nacos 2 and later), for one namespace, and waits until the
    /// server takes requests on the connection. For `public` it may be empty.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if what listens there is no Nacos; [`Error::Transport`] if nothing does.
    ///
    /// # Panics
    /// If there is no server of this index.
    pub async fn connect(
        &self,
        server: usize,
        namespace: &str,
    ) -> Result<(Connection, Pushes), Error> {
        connection::open(self.clone(), server, namespace).await
    }

    /// The HTTP API of a server (Nacos 1, and what gRPC has not).
    ///
    /// # Panics
    /// If there is no server of this index.
    #[must_use]
    pub fn http(&self, server: usize) -> Http {
        assert!(server < self.servers(), "there is no server {server}");
        Http::new(self.clone(), server)
    }

    pub(crate) fn at(&self, index: usize) -> &Server {
        &self.0.servers[index]
    }

    pub(crate) fn tls(&self) -> &TlsConfig {
        &self.0.tls
    }

    pub(crate) fn meter(&self) -> &dyn Meter {
        &*self.0.meter
    }

    /// What a request to a server shows of us.
    pub(crate) async fn prove(&self, server: usize, subject: Subject<'_>) -> Result<Proof, Error> {
        match &self.0.credentials {
            Credentials::None => Ok(Proof::Nothing),
            Credentials::Keys { access_key, file } => sign(access_key, file, subject),
            Credentials::Password { username, file } => {
                let server = self.at(server);
                let door = Door {
                    username,
                    file,
                    http: &server.http,
                    meter: self.meter(),
                };
                server.session.token(&door).await.map(Proof::Token)
            }
        }
    }

    /// After a server refused a proof: another that may do, for a token may have ended early.
    pub(crate) async fn prove_again(
        &self,
        server: usize,
        subject: Subject<'_>,
        refused: &Proof,
    ) -> Result<Option<Proof>, Error> {
        let Proof::Token(token) = refused else {
            return Ok(None);
        };
        if !self.at(server).session.forget(token).await {
            return Ok(None);
        }
        self.prove(server, subject).await.map(Some)
    }

    /// A server refused a proof of [`Client::prove_again`], too.
    pub(crate) async fn refused_again(&self, server: usize, proof: &Proof) {
        if let Proof::Token(token) = proof {
            self.at(server).session.refused_new(token).await;
        }
    }

    /// The error for what a server does not let us do.
    pub(crate) fn denied(&self, server: usize, said: &str) -> Error {
        let (server, hint) = (self.server(server), self.0.credentials.hint());
        Error::Denied(format!("{server} says `{said}`; {hint}"))
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let servers = self.0.servers.iter().map(|server| server.http.address());
        f.debug_tuple("Client")
            .field(&servers.collect::<Vec<_>>())
            .finish()
    }
}

impl Server {
    fn new(address: &str, grpc_offset: u16, tls: &TlsConfig) -> Result<Self, Error> {
        let mut config = HttpConfig::new(vec![address.to_owned()], tls.clone());
        config.max_body = ANSWER_LIMIT;
        let http = HttpClient::new(config).map_err(|error| match error {
            HttpError::Config(what) => Error::Config(what),
            other => Error::Config(other.to_string()),
        })?;
        // What is no address was told just now.
        let wrong = |what| Error::Config(format!("`{address}` {what}"));
        let url = Url::parse(address).map_err(|_| wrong("is not an address"))?;
        let host = url.host().ok_or_else(|| wrong("names no host"))?.to_owned();
        let port = url
            .port_or_known_default()
            .and_then(|port| port.checked_add(grpc_offset))
            .ok_or_else(|| wrong("has a port to which the gRPC offset cannot be added"))?;
        Ok(Self {
            grpc: GrpcAddress::new(host, port, url.scheme() == "https"),
            http,
            session: Session::default(),
            modern: Default::default(),
        })
    }
}
