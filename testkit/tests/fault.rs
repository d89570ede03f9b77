//! The HTTP fault proxy in front of a real Consul and a real API server.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use diolkos_testkit::{
    Consul, Fault, HttpFault, Kubernetes, Moment, On, Reply, eventually, install_crypto,
};
use reqwest::{Client, Response};
use serde_json::{Value, json};
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(10);
/// Long enough for loopback to carry an answer, if there was one.
const SILENCE: Duration = Duration::from_millis(300);

fn client() -> Result<Client> {
    install_crypto();
    Ok(Client::builder().no_proxy().no_gzip().build()?)
}

struct Rig {
    consul: Consul,
    proxy: HttpFault,
    client: Client,
}

impl Rig {
    async fn start() -> Result<Self> {
        let consul = Consul::start().await?;
        consul.register(&json!({"Name": "web", "Port": 1})).await?;
        Ok(Self {
            proxy: HttpFault::start(&consul.http_addr()).await?,
            consul,
            client: client()?,
        })
    }

    async fn get(&self, path: &str) -> reqwest::Result<Response> {
        let url = format!("{}{path}", self.proxy.url());
        self.client.get(url).send().await
    }

    async fn text(&self, path: &str) -> reqwest::Result<String> {
        self.get(path).await?.error_for_status()?.text().await
    }

    async fn put_key(&self, key: &str) -> reqwest::Result<String> {
        let url = format!("{}/v1/kv/{key}", self.proxy.url());
        self.client.put(url).body("1").send().await?.text().await
    }
}

const WEB: &str = "/v1/health/service/web";

/// The port of the only instance in an answer to [`WEB`].
fn port(answer: &str) -> Result<Value> {
    let entries: Value = serde_json::from_str(answer)?;
    Ok(entries[0]["Service"]["Port"].clone())
}

#[tokio::test]
async fn without_rules_all_passes_with_headers_and_long_polls() -> Result<()> {
    let rig = Rig::start().await?;
    let answer = rig.get(WEB).await?;
    let index = answer.headers()["x-consul-index"].to_str()?.to_owned();
    let seen: Value = serde_json::from_str(&answer.text().await?)?;
    assert_eq!(seen, rig.consul.get(WEB).await?);

    let path = format!("{WEB}?index={index}&wait=10s");
    let poll = async { rig.text(&path).await };
    let other = json!({"Name": "web", "Port": 2});
    let change = rig.consul.register(&other);
    let (polled, changed) = tokio::join!(poll, change);
    changed?;
    assert_eq!(port(&polled?)?, 2);

    assert_eq!(rig.put_key("a").await?, "true");
    let log = rig.proxy.log();
    assert_eq!(log.len(), 3);
    assert_eq!(
        (log[2].path.as_str(), log[2].told, log[2].server),
        ("/v1/kv/a", Some(200), Some(200))
    );
    assert!(log[2].is_write() && !log[0].is_write());
    Ok(())
}

#[tokio::test]
async fn replies_in_the_servers_place_and_counts() -> Result<()> {
    let rig = Rig::start().await?;
    let busy = Reply::status(429).header("Retry-After", "3").body("slow");
    let on = On::reads().path("/service/").skip(1).first(2);
    let rule = rig.proxy.rule(on, Fault::Reply(busy));
    let mut statuses = Vec::new();
    for _ in 0..4 {
        statuses.push(rig.get(WEB).await?.status().as_u16());
        rig.put_key("a").await?;
    }
    assert_eq!(statuses, [200, 429, 429, 200]);
    assert_eq!(rule.hits(), 2);
    let told = |status| rig.proxy.count(|r| r.told == Some(status));
    assert_eq!((told(200), told(429)), (6, 2));
    assert_eq!(rig.proxy.count(|r| r.server.is_none()), 2);

    rig.proxy.rule(
        On::every(),
        Fault::Reply(Reply::kubernetes(409, "Conflict")),
    );
    let answer = rig.get(WEB).await?;
    assert_eq!(answer.status(), 409);
    let body: Value = serde_json::from_str(&answer.text().await?)?;
    assert_eq!(
        (&body["reason"], &body["code"]),
        (&json!("Conflict"), &json!(409))
    );
    rig.proxy.clear();
    assert_eq!(rig.get(WEB).await?.status(), 200);
    Ok(())
}

#[tokio::test]
async fn replays_an_old_answer() -> Result<()> {
    let rig = Rig::start().await?;
    let old = rig.proxy.record(WEB).await?;
    rig.consul
        .register(&json!({"Name": "web", "Port": 2}))
        .await?;
    let rule = rig.proxy.rule(On::every().path(WEB), Fault::Reply(old));
    let answer = rig.get(WEB).await?;
    let index = answer.headers()["x-consul-index"]
        .to_str()?
        .parse::<u64>()?;
    assert_eq!(port(&answer.text().await?)?, 1);
    rule.end();
    let answer = rig.get(WEB).await?;
    assert!(
        answer.headers()["x-consul-index"]
            .to_str()?
            .parse::<u64>()?
            > index
    );
    assert_eq!(port(&answer.text().await?)?, 2);
    Ok(())
}

#[tokio::test]
async fn delays_then_goes_on_to_the_next_rule() -> Result<()> {
    let rig = Rig::start().await?;
    let slow = Duration::from_millis(300);
    rig.proxy.rule(On::every(), Fault::Delay(slow));
    rig.proxy
        .rule(On::every().nth(2), Fault::Reply(Reply::status(503)));
    for status in [200, 503] {
        let at = Instant::now();
        assert_eq!(rig.get(WEB).await?.status().as_u16(), status);
        assert!(at.elapsed() >= slow, "{:?}", at.elapsed());
    }
    Ok(())
}

#[tokio::test]
async fn cuts_after_exactly_so_many_bytes() -> Result<()> {
    let rig = Rig::start().await?;
    let whole = rig.text(WEB).await?;
    for most in [0, 1, 100] {
        rig.proxy.clear();
        rig.proxy.rule(On::every(), Fault::Cut(most));
        let mut answer = rig
            .get(WEB)
            .await
            .with_context(|| format!("cut at {most}"))?;
        assert_eq!(answer.status(), 200);
        let mut got = Vec::new();
        let error = loop {
            match answer.chunk().await {
                Ok(Some(piece)) => got.extend(piece),
                Ok(None) => panic!("the answer looks whole"),
                Err(error) => break error,
            }
        };
        assert!(error.is_body() || error.is_decode(), "{error:?}");
        assert_eq!(got, &whole.as_bytes()[..most]);
    }
    Ok(())
}

/// Whether a connection ended by a reset, which shows as the innermost error.
fn is_reset(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut error = Some(error);
    while let Some(inner) = error {
        if let Some(io) = inner.downcast_ref::<std::io::Error>()
            && io.kind() == std::io::ErrorKind::ConnectionReset
        {
            return true;
        }
        error = inner.source();
    }
    false
}

#[tokio::test]
async fn resets_with_and_without_executing() -> Result<()> {
    let rig = Rig::start().await?;
    let key = async |key: &str| rig.consul.get(&format!("/v1/kv/{key}")).await;
    rig.proxy.rule(On::writes().path("/a"), Fault::Reset);
    rig.proxy.rule(On::writes().path("/b"), Fault::LoseReply);
    for name in ["a", "b"] {
        let error = rig.put_key(name).await.expect_err("a reset");
        assert!(is_reset(&error), "{error:?}");
    }
    key("a").await.expect_err("never executed");
    key("b").await.context("executed")?;
    assert_eq!(rig.proxy.count(|r| r.told.is_none()), 2);
    assert_eq!(rig.proxy.count(|r| r.server == Some(200)), 1);

    // A server that is gone shows as a reset, too, not as an answer of the proxy.
    rig.consul.kill()?;
    assert!(is_reset(&rig.get(WEB).await.expect_err("a reset")));
    Ok(())
}

#[tokio::test]
async fn hangs_until_the_rule_ends_and_half_open_for_ever() -> Result<()> {
    let rig = Rig::start().await?;
    let hang = rig.proxy.rule(On::every().path("/service/"), Fault::Hang);
    let half = rig.proxy.rule(On::every().path("/kv/"), Fault::HalfOpen);
    let hung = rig.text(WEB);
    let dead = rig.put_key("a");
    tokio::pin!(hung, dead);
    assert!(timeout(SILENCE, &mut hung).await.is_err());
    assert!(timeout(SILENCE, &mut dead).await.is_err());
    hang.end();
    half.end();
    timeout(SOON, hung).await??;
    assert!(timeout(SILENCE, &mut dead).await.is_err());
    assert_eq!(rig.put_key("b").await?, "true", "on a new connection");
    rig.proxy.cut();
    assert!(is_reset(&timeout(SOON, dead).await?.expect_err("cut")));
    Ok(())
}

#[tokio::test]
async fn a_hook_before_and_after_the_nth_write() -> Result<()> {
    let rig = Rig::start().await?;
    let calls = Arc::new(AtomicUsize::new(0));
    for moment in [Moment::Before, Moment::After] {
        let counted = Arc::clone(&calls);
        rig.proxy.on_nth_write(2, moment, move || {
            counted.fetch_add(1, Ordering::SeqCst);
        });
        let name = |n| format!("{moment:?}-{n}");
        rig.get(WEB).await?;
        assert_eq!(rig.put_key(&name(1)).await?, "true");
        rig.put_key(&name(2)).await.expect_err("no answer");
        assert_eq!(rig.put_key(&name(3)).await?, "true");
        let executed = rig.consul.get(&format!("/v1/kv/{}", name(2))).await;
        assert_eq!(executed.is_ok(), moment == Moment::After);
    }
    assert_eq!(calls.load(Ordering::SeqCst), 2);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_front_of_the_api_server_watches_stream() -> Result<()> {
    let kubernetes = Kubernetes::builder()
        .without_controller_manager()
        .start()
        .await?;
    let proxy = kubernetes.fault_proxy().await?;
    let config = kubernetes.kubeconfig_through(&proxy)?;
    let config = config.to_str().context("UTF-8")?;
    kubernetes
        .kubectl(&["--kubeconfig", config, "create", "namespace", "a"])
        .await?;
    let wrote = |r: &diolkos_testkit::fault::Logged| r.is_write() && r.told == Some(201);
    assert_eq!(proxy.count(wrote), 1);

    let client = client()?;
    let url = format!("{}/api/v1/namespaces?watch=1", proxy.url());
    let mut watch = client.get(&url).send().await?.error_for_status()?;
    let mut seen = String::new();
    for name in ["b", "c"] {
        kubernetes.kubectl(&["create", "namespace", name]).await?;
        // Each event comes by itself, while the answer goes on.
        while !seen.contains(&format!("\"name\":\"{name}\"")) {
            let piece = timeout(SOON, watch.chunk()).await??;
            seen += std::str::from_utf8(&piece.context("the watch ended")?)?;
        }
    }
    proxy.cut();
    timeout(SOON, async {
        while watch.chunk().await?.is_some() {}
        reqwest::Result::Ok(())
    })
    .await?
    .expect_err("cut in the middle");

    // kubectl keeps its own name through the proxy.
    eventually(SOON, "the audit log names kubectl", async || {
        let requests = kubernetes.requests()?;
        let creates = requests
            .iter()
            .filter(|r| r.verb == "create" && r.name == "a");
        let agents: Vec<_> = creates.map(|r| r.user_agent.clone()).collect();
        ensure!(
            agents.len() == 1 && agents[0].starts_with("kubectl/"),
            "{agents:?}"
        );
        Ok(())
    })
    .await;
    Ok(())
}
