//! A connection as a stream of frames in both directions, plain or with TLS.

use std::{io, net::SocketAddr, time::Duration};

use bytes::BytesMut;
use rustls::pki_types::ServerName;
use tokio::{
    io::{
        AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf, split,
    },
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use crate::{
    error::Fault,
    splitter::{Frame, Splitter},
};

/// A duplex stream.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// TLS, and the name that the server's certificate has to have.
pub(crate) struct Tls {
    pub(crate) connector: TlsConnector,
    pub(crate) name: ServerName<'static>,
}

/// A connection to a server.
pub(crate) struct Wire {
    pub(crate) inbound: Inbound,
    pub(crate) outbound: Outbound,
}

/// What comes.
pub(crate) struct Inbound {
    stream: ReadHalf<Box<dyn Stream>>,
    pub(crate) splitter: Splitter,
}

/// What goes.
pub(crate) struct Outbound {
    stream: WriteHalf<Box<dyn Stream>>,
    /// What is to be sent.
    pub(crate) buffer: BytesMut,
    /// Whether something may still be in the stream's own buffer (TLS).
    unflushed: bool,
}

impl Wire {
    /// Connects. Frames of more than `limit` bytes are not kept.
    pub(crate) async fn open(
        address: SocketAddr,
        tls: Option<Tls>,
        limit: usize,
    ) -> Result<Self, Fault> {
        let tcp = TcpStream::connect(address).await?;
        tcp.set_nodelay(true)?;
        let stream: Box<dyn Stream> = match tls {
            None => Box::new(tcp),
            Some(Tls { connector, name }) => {
                let stream = connector.connect(name, tcp).await;
                Box::new(stream.map_err(|error| Fault::Broken(format!("TLS: {error}")))?)
            }
        };
        let (read, write) = split(stream);
        Ok(Self {
            inbound: Inbound {
                stream: read,
                splitter: Splitter::new(limit),
            },
            outbound: Outbound {
                stream: write,
                buffer: BytesMut::new(),
                unflushed: false,
            },
        })
    }

    /// Sends what is to be sent and waits for a frame, for so long.
    pub(crate) async fn exchange(&mut self, patience: Duration) -> Result<Vec<u8>, Fault> {
        let frame = async {
            self.outbound.push().await?;
            self.inbound.frame().await
        };
        timeout(patience, frame)
            .await
            .unwrap_or_else(|_| Err(Fault::Broken(format!("no answer for {patience:?}"))))
    }
}

impl Inbound {
    /// Waits for more bytes. Nothing is lost when the future is dropped.
    pub(crate) async fn fill(&mut self) -> Result<(), Fault> {
        match self.stream.read_buf(self.splitter.space()).await {
            Ok(0) => Err(Fault::Closed("the server closed the connection".to_owned())),
            Ok(_) => Ok(()),
            Err(error) => Err(Fault::Closed(error.to_string())),
        }
    }

    async fn frame(&mut self) -> Result<Vec<u8>, Fault> {
        loop {
            match self.splitter.next()? {
                Some(Frame::Whole(bytes)) => return Ok(bytes.to_vec()),
                Some(Frame::Large { bytes, .. }) => {
                    let problem = format!("a greeting of {bytes} bytes, is this ZooKeeper's port?");
                    return Err(Fault::Protocol(problem));
                }
                None => self.fill().await?,
            }
        }
    }
}

impl Outbound {
    pub(crate) fn is_idle(&self) -> bool {
        self.buffer.is_empty() && !self.unflushed
    }

    /// Sends what is to be sent. Nothing is lost when the future is dropped.
    pub(crate) async fn push(&mut self) -> io::Result<()> {
        while !self.buffer.is_empty() {
            self.unflushed = true;
            if self.stream.write_buf(&mut self.buffer).await? == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
        }
        self.stream.flush().await?;
        self.unflushed = false;
        Ok(())
    }
}
