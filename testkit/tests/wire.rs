//! The fault proxy, the upstream, ports and waiting.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use diolkos_testkit::{HttpUpstream, TcpProxy, eventually, install_crypto, ports};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(5);
/// Long enough for loopback to carry a byte, if anything carried it.
const SILENCE: Duration = Duration::from_millis(200);

/// A server that sends back what it gets.
async fn echo() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                tokio::io::copy(&mut read, &mut write).await
            });
        }
    });
    Ok(address)
}

async fn exchange(stream: &mut TcpStream) -> std::io::Result<()> {
    stream.write_all(b"ping").await?;
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).await?;
    assert_eq!(&answer, b"ping");
    Ok(())
}

#[tokio::test]
async fn the_proxy_carries_counts_and_cuts() -> anyhow::Result<()> {
    let proxy = TcpProxy::start(echo().await?).await?;
    let mut first = TcpStream::connect(proxy.address()).await?;
    let mut second = TcpStream::connect(proxy.address()).await?;
    exchange(&mut first).await?;
    exchange(&mut second).await?;
    assert_eq!((proxy.open(), proxy.total(), proxy.peak()), (2, 2, 2));
    drop(second);
    eventually(SOON, "one is open", async || proxy.open() == 1).await;
    proxy.cut();
    let error = timeout(SOON, exchange(&mut first)).await?.expect_err("cut");
    assert!(
        matches!(
            error.kind(),
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
        ),
        "{error}"
    );
    eventually(SOON, "none is open", async || proxy.open() == 0).await;
    exchange(&mut TcpStream::connect(proxy.address()).await?).await?;
    assert_eq!((proxy.total(), proxy.peak()), (3, 2));
    Ok(())
}

#[tokio::test]
async fn the_proxy_refuses_and_listens_again() -> anyhow::Result<()> {
    let mut proxy = TcpProxy::start(echo().await?).await?;
    let mut open = TcpStream::connect(proxy.address()).await?;
    exchange(&mut open).await?;
    proxy.refuse(true).await?;
    let error = TcpStream::connect(proxy.address())
        .await
        .expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    exchange(&mut open).await?;
    proxy.refuse(false).await?;
    exchange(&mut TcpStream::connect(proxy.address()).await?).await?;
    Ok(())
}

#[tokio::test]
async fn the_proxy_hangs_and_flows_on() -> anyhow::Result<()> {
    let proxy = TcpProxy::start(echo().await?).await?;
    let mut old = TcpStream::connect(proxy.address()).await?;
    exchange(&mut old).await?;
    proxy.hang(true);
    old.write_all(b"ping").await?;
    let mut new = TcpStream::connect(proxy.address()).await?;
    new.write_all(b"ping").await?;
    let mut answer = [0; 4];
    assert!(timeout(SILENCE, old.read_exact(&mut answer)).await.is_err());
    assert!(timeout(SILENCE, new.read_exact(&mut answer)).await.is_err());
    proxy.hang(false);
    for stream in [&mut old, &mut new] {
        timeout(SOON, stream.read_exact(&mut answer)).await??;
        assert_eq!(&answer, b"ping");
    }
    Ok(())
}

#[tokio::test]
async fn the_upstream_says_its_name_and_counts() -> anyhow::Result<()> {
    install_crypto();
    let upstream = HttpUpstream::start("orders-v1").await?;
    let url = format!("http://{}/any/path", upstream.address());
    let client = reqwest::Client::builder().no_proxy().build()?;
    assert_eq!(client.get(&url).send().await?.text().await?, "orders-v1");
    assert_eq!(client.post(&url).send().await?.text().await?, "orders-v1");
    assert_eq!(upstream.requests(), 2);
    Ok(())
}

#[test]
fn ports_and_addresses_are_given_once() -> anyhow::Result<()> {
    let held = ports::free::<50>()?;
    let numbers: BTreeSet<u16> = held.iter().map(ports::Port::number).collect();
    assert_eq!(numbers.len(), 50);
    let addresses = [ports::address()?, ports::address()?];
    assert_ne!(addresses[0].ip(), addresses[1].ip());
    assert!(addresses[0].ip().is_loopback());
    Ok(())
}

#[tokio::test]
#[should_panic(expected = "the moon: not within 60ms; last look: \"still new\"")]
async fn eventually_says_what_it_saw_last() {
    let look = async || Err::<(), _>("still new");
    eventually(Duration::from_millis(60), "the moon", look).await;
}

#[tokio::test]
async fn eventually_returns_the_first_value() {
    let mut looks = 0;
    let third = async || {
        looks += 1;
        (looks == 3).then_some(looks)
    };
    assert_eq!(eventually(SOON, "the third look", third).await, 3);
}
