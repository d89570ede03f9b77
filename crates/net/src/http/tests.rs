use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::*;

/// A server that answers each request on each connection with the same bytes and counts connections.
async fn serve(answer: String) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let connections = Arc::new(AtomicUsize::new(0));
    let counter = connections.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            counter.fetch_add(1, Ordering::SeqCst);
            let answer = answer.clone();
            tokio::spawn(async move {
                let mut seen = Vec::new();
                let mut buffer = [0; 1024];
                while let Ok(n) = stream.read(&mut buffer).await {
                    if n == 0 {
                        return;
                    }
                    seen.extend_from_slice(&buffer[..n]);
                    if seen.ends_with(b"\r\n\r\n") {
                        seen.clear();
                        if stream.write_all(answer.as_bytes()).await.is_err() {
                            return;
                        }
                    }
                }
            });
        }
    });
    (address, connections)
}

fn ok(body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}")
}

/// An address that nobody listens on.
async fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

fn client(addresses: impl IntoIterator<Item = String>) -> HttpClient {
    let addresses = addresses.into_iter().collect();
    HttpClient::new(HttpConfig::new(addresses, TlsConfig::default())).unwrap()
}

#[tokio::test]
async fn goes_over_to_the_next_address_and_stays_there() {
    let (good, connections) = serve(ok("here")).await;
    let client = client([nobody().await, good.clone()]);
    for _ in 0..3 {
        let answer = client.send(&Request::get(["v1"])).await.unwrap();
        assert_eq!(answer.body, "here");
    }
    assert_eq!(client.address(), good);
    assert_eq!(connections.load(Ordering::SeqCst), 1, "keep-alive");
    assert_eq!((client.requests(), client.in_flight()), (4, 0));
}

#[tokio::test]
async fn names_the_address_when_nobody_listens() {
    let address = nobody().await;
    let error = client([address.clone()])
        .send(&Request::get(["v1"]))
        .await
        .unwrap_err();
    assert!(matches!(error, HttpError::Connect { .. }), "{error:?}");
    assert!(error.to_string().contains(&address), "{error}");
}

#[tokio::test]
async fn a_caller_that_fails_over_twice_from_one_address_moves_once() {
    let (a, _) = serve(ok("a")).await;
    let (b, _) = serve(ok("b")).await;
    let client = client([a, b.clone()]);
    let answer = client.send(&Request::get(["v1"])).await.unwrap();
    client.fail_over(answer.from);
    client.fail_over(answer.from);
    assert_eq!(client.address(), b);
}

#[tokio::test]
async fn the_deadline_holds_and_the_next_request_goes_elsewhere() {
    let (silent, _) = serve(String::new()).await;
    let (good, _) = serve(ok("here")).await;
    let client = client([silent, good]);
    let request = Request::get(["v1"]).deadline(Duration::from_millis(100));
    let error = client.send(&request).await.unwrap_err();
    assert!(matches!(error, HttpError::Timeout { .. }), "{error:?}");
    assert_eq!(client.send(&request).await.unwrap().body, "here");
}

#[tokio::test]
async fn an_answer_over_the_limit_is_an_error() {
    let (address, _) = serve(ok("0123456789")).await;
    let mut config = HttpConfig::new(vec![address], TlsConfig::default());
    config.max_body = 9;
    let client = HttpClient::new(config).unwrap();
    let error = client.send(&Request::get(["v1"])).await.unwrap_err();
    assert!(matches!(error, HttpError::TooLarge { .. }), "{error:?}");
}

#[tokio::test]
async fn redirects_are_answers() {
    let (elsewhere, connections) = serve(ok("stolen")).await;
    let redirect =
        format!("HTTP/1.1 302 Found\r\nlocation: {elsewhere}\r\ncontent-length: 0\r\n\r\n");
    let (address, _) = serve(redirect).await;
    let answer = client([address]).send(&Request::get(["v1"])).await.unwrap();
    assert_eq!(answer.status, StatusCode::FOUND);
    assert_eq!(connections.load(Ordering::SeqCst), 0);
}

#[test]
fn urls_are_encoded_and_keep_the_base_path() {
    let client = client(["http://127.0.0.1:1/consul/".to_owned()]);
    let request = Request::get(["v1", "a/b c?"]).query("filter", "x != \"y\"");
    assert_eq!(
        client.0.url(AddressId(0), &request).as_str(),
        "http://127.0.0.1:1/consul/v1/a%2Fb%20c%3F?filter=x+%21%3D+%22y%22"
    );
}

#[test]
fn bad_addresses_are_refused_with_advice() {
    for (address, advice) in [
        ("127.0.0.1:8500", "write http://"),
        ("consul", "write http://"),
        ("ftp://a", "write http://"),
        ("http://user:secret@a", "credential file"),
    ] {
        let config = HttpConfig::new(vec![address.to_owned()], TlsConfig::default());
        let error = HttpClient::new(config).unwrap_err().to_string();
        assert!(error.contains(advice), "{address}: {error}");
        assert!(!error.contains("secret"), "{error}");
    }
}

#[test]
fn a_server_name_is_a_dns_name() {
    let with = |name: &str| {
        let tls = TlsConfig {
            server_name: Some(name.to_owned()),
            ..TlsConfig::default()
        };
        HttpClient::new(HttpConfig::new(vec!["https://127.0.0.1:1".into()], tls))
    };
    assert_eq!(
        with("server.dc1.consul").unwrap().address(),
        "https://127.0.0.1:1"
    );
    for name in ["", "10.0.0.1", "::1", "a b", "a/b"] {
        let error = with(name).unwrap_err().to_string();
        assert!(error.contains("is not a DNS name"), "{name}: {error}");
    }
}
