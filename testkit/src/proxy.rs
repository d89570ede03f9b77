//! A TCP proxy that breaks the wire on demand.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::ports::{self, Port};

/// What the proxy does to traffic; set by the test, watched by every connection.
#[derive(Debug, Clone, Copy)]
struct Orders {
    target: SocketAddr,
    refuse: bool,
    hang: bool,
    /// Counts the cuts: a connection ends when this changes.
    cuts: u64,
}

#[derive(Debug, Default)]
struct Counts {
    open: AtomicUsize,
    total: AtomicUsize,
    peak: AtomicUsize,
}

/// A proxy on a loopback port in front of one TCP server. It ends, with its connections, on drop.
#[derive(Debug)]
pub struct TcpProxy {
    port: Port,
    orders: watch::Sender<Orders>,
    listening: watch::Receiver<bool>,
    counts: Arc<Counts>,
    server: JoinHandle<()>,
}

impl TcpProxy {
    /// Listens on a free port of 127.0.0.1 and forwards to `target`.
    ///
    /// # Errors
    /// When no port is free.
    pub async fn start(target: SocketAddr) -> Result<Self> {
        let port = ports::port()?;
        let address = port.address();
        let (orders, watched) = watch::channel(Orders {
            target,
            refuse: false,
            hang: false,
            cuts: 0,
        });
        let (report, listening) = watch::channel(false);
        let counts = Arc::new(Counts::default());
        let server = tokio::spawn(serve(address, watched, report, Arc::clone(&counts)));
        let mut proxy = Self {
            port,
            orders,
            listening,
            counts,
            server,
        };
        proxy.until_listening(true).await?;
        Ok(proxy)
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// The number of connections that are open now.
    pub fn open(&self) -> usize {
        self.counts.open.load(Ordering::SeqCst)
    }

    /// The number of connections so far.
    pub fn total(&self) -> usize {
        self.counts.total.load(Ordering::SeqCst)
    }

    /// The greatest number of connections that were open at once.
    pub fn peak(&self) -> usize {
        self.counts.peak.load(Ordering::SeqCst)
    }

    /// Resets all connections. New ones are accepted.
    pub fn cut(&self) {
        self.orders.send_modify(|o| o.cuts += 1);
    }

    /// From now on new connections go to another server; open ones stay where they are.
    pub fn redirect(&self, target: SocketAddr) {
        self.orders.send_modify(|o| o.target = target);
    }

    /// With `true`, closes the listener, so that new connections are refused; open ones stay. With `false`, listens
    /// again on the same port. Returns when it is so.
    ///
    /// # Errors
    /// When the proxy cannot listen again.
    pub async fn refuse(&mut self, on: bool) -> Result<()> {
        self.orders.send_modify(|o| o.refuse = on);
        self.until_listening(!on).await
    }

    /// With `true`, connections stay open and new ones are accepted, but nothing is carried; the target's and the
    /// client's ends are not noticed either, as behind a dead firewall. With `false`, what was held flows on.
    pub fn hang(&self, on: bool) {
        self.orders.send_modify(|o| o.hang = on);
    }

    /// From now on new connections are refused, and those that are open break.
    ///
    /// # Errors
    /// As [`refuse`](Self::refuse).
    pub async fn interrupt(&mut self) -> Result<()> {
        self.refuse(true).await?;
        self.cut();
        Ok(())
    }

    /// Ends what [`interrupt`](Self::interrupt) and [`hang`](Self::hang) began.
    ///
    /// # Errors
    /// As [`refuse`](Self::refuse).
    pub async fn restore(&mut self) -> Result<()> {
        self.hang(false);
        self.refuse(false).await
    }

    async fn until_listening(&mut self, on: bool) -> Result<()> {
        self.listening
            .wait_for(|now| *now == on)
            .await
            .context("the proxy cannot listen on its port")?;
        Ok(())
    }
}

impl Drop for TcpProxy {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// Accepts until aborted. Ends early only when the port cannot be opened, which drops `report`.
async fn serve(
    address: SocketAddr,
    mut orders: watch::Receiver<Orders>,
    report: watch::Sender<bool>,
    counts: Arc<Counts>,
) {
    let mut connections = JoinSet::new();
    while let Ok(listener) = TcpListener::bind(address).await {
        report.send_replace(true);
        loop {
            tokio::select! {
                Ok(()) = async { orders.wait_for(|o| o.refuse).await.map(drop) } => break,
                Ok((client, _)) = listener.accept() => {
                    connections.spawn(connection(client, orders.clone(), Arc::clone(&counts)));
                }
                Some(_) = connections.join_next() => {}
                else => return,
            }
        }
        drop(listener);
        report.send_replace(false);
        if orders.wait_for(|o| !o.refuse).await.is_err() {
            return;
        }
    }
}

/// Counts a connection for as long as it lives, also when its task is aborted.
struct Counted(Arc<Counts>);

impl Counted {
    fn new(counts: Arc<Counts>) -> Self {
        counts.total.fetch_add(1, Ordering::SeqCst);
        let open = counts.open.fetch_add(1, Ordering::SeqCst) + 1;
        counts.peak.fetch_max(open, Ordering::SeqCst);
        Self(counts)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn connection(
    mut client: TcpStream,
    mut orders: watch::Receiver<Orders>,
    counts: Arc<Counts>,
) {
    let _counted = Counted::new(counts);
    let cuts = orders.borrow().cuts;
    let watched = orders.clone();
    let cut = tokio::select! {
        // First, so that a hang that ends right after a cut lets nothing through that it held.
        biased;
        _ = orders.wait_for(|o| o.cuts != cuts) => true,
        // The end or error of either side ends both, as far as a client can tell.
        _ = carry(&mut client, watched) => false,
    };
    if cut {
        // A reset instead of an orderly end; if the socket is gone already, the client has seen an end.
        client.set_zero_linger().ok();
    }
}

async fn carry(client: &mut TcpStream, orders: watch::Receiver<Orders>) -> io::Result<()> {
    let mut held = orders.clone();
    let target = held
        .wait_for(|o| !o.hang)
        .await
        .map_err(io::Error::other)?
        .target;
    let mut server = TcpStream::connect(target).await?;
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    tokio::try_join!(
        copy(from_client, to_server, orders.clone()),
        copy(from_server, to_client, orders)
    )?;
    Ok(())
}

/// Copies one direction, holding each piece while the proxy hangs, and passes the end on.
async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut orders: watch::Receiver<Orders>,
) -> io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let n = from.read(&mut buffer).await;
        orders
            .wait_for(|o| !o.hang)
            .await
            .map_err(io::Error::other)?;
        match n? {
            0 => return to.shutdown().await,
            n => to.write_all(&buffer[..n]).await?,
        }
    }
}
