//! A small HTTP server that says its name: the workload behind a mesh's endpoint.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result};
use axum::Router;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// A running HTTP/1.1 server that answers each request with 200 and its name. It ends on drop.
#[derive(Debug)]
pub struct HttpUpstream {
    address: SocketAddr,
    requests: Arc<AtomicUsize>,
    server: JoinHandle<()>,
}

impl HttpUpstream {
    /// Listens on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// As [`start_at`](Self::start_at).
    pub async fn start(name: &str) -> Result<Self> {
        Self::start_at((Ipv4Addr::LOCALHOST, 0).into(), name).await
    }

    /// Listens on an address; port 0 stands for a free one.
    ///
    /// # Errors
    /// When the address is taken.
    pub async fn start_at(address: SocketAddr, name: &str) -> Result<Self> {
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("cannot listen on {address}"))?;
        let address = listener.local_addr()?;
        let requests = Arc::new(AtomicUsize::new(0));
        let (name, count) = (name.to_owned(), Arc::clone(&requests));
        let answer = move || async move {
            count.fetch_add(1, Ordering::Relaxed);
            name
        };
        let server = tokio::spawn(async move {
            // `serve` retries failed accepts itself and never returns an error.
            axum::serve(listener, Router::new().fallback(answer))
                .await
                .ok();
        });
        Ok(Self {
            address,
            requests,
            server,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The number of requests so far.
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }
}

impl Drop for HttpUpstream {
    fn drop(&mut self) {
        self.server.abort();
    }
}
