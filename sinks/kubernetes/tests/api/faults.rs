//! Answers of an API server in trouble, and what a write makes of them.

use std::time::Duration;

use anyhow::Result;
use diolkos_sink_api::{Outcome, Permit, Sink as _, WriteError, Writer as _};
use diolkos_testkit::{Fault, On, Reply};

use crate::support::{Bed, all, observed, one, ours, put, service_entry, through_a_proxy};

/// What the API server says while istiod is down.
const WEBHOOK: &str = r#"{"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 500,
    "message": "failed calling webhook \"validation.istio.io\": no endpoints available"}"#;

#[tokio::test]
async fn each_answer_says_when_to_come_again_and_none_is_taken_for_a_verdict() -> Result<()> {
    let bed = Bed::start().await?;
    let (proxy, mut sink) = through_a_proxy(&bed, Duration::from_millis(500)).await?;
    let object = service_entry("orders", 80);
    assert_eq!(one(&mut sink, put(&object)).await, Ok(Outcome::Created));

    // A server with too many requests answers in plain text and says in a header how long to wait.
    let busy = |seconds: &str| {
        let reply = Reply::status(429).body("Too many requests, please try again later.");
        Fault::Reply(reply.header("Retry-After", seconds))
    };
    let webhook = Reply::status(500).header("content-type", "application/json");
    let webhook = webhook.body(WEBHOOK);
    for (fault, after, reason) in [
        (busy("7"), Some(7), "Too many requests"),
        (busy("soon"), Some(1), "Too many requests"),
        (
            Fault::Reply(Reply::kubernetes(429, "TooManyRequests")),
            Some(1),
            "TooManyRequests",
        ),
        (
            Fault::Reply(Reply::kubernetes(409, "Conflict")),
            None,
            "it changed meanwhile",
        ),
        (
            Fault::Reply(Reply::kubernetes(410, "Expired")),
            None,
            "Expired",
        ),
        (
            Fault::Reply(Reply::kubernetes(500, "InternalError")),
            None,
            "InternalError",
        ),
        (Fault::Reply(webhook), None, "failed calling webhook"),
        (
            Fault::Reply(Reply::status(502).body("<html>bad gateway</html>")),
            None,
            "bad gateway",
        ),
        (
            Fault::Reply(Reply::kubernetes(503, "ServiceUnavailable")),
            None,
            "ServiceUnavailable",
        ),
        (
            Fault::Reply(Reply::kubernetes(504, "Timeout")),
            None,
            "Timeout",
        ),
        (
            Fault::Hang,
            None,
            "no answer from the API server within 0.5 s",
        ),
        (
            Fault::HalfOpen,
            None,
            "no answer from the API server within 0.5 s",
        ),
        (Fault::Cut(20), None, ""),
        (Fault::Reset, None, ""),
    ] {
        let shown = format!("{fault:?}");
        let rule = proxy.rule(On::writes(), fault);
        let next = service_entry("orders", 81);
        match one(&mut sink, put(&next)).await {
            Err(WriteError::Retry {
                reason: said,
                after: asked,
            }) => {
                assert_eq!(asked.map(|asked| asked.as_secs()), after, "{shown}");
                assert!(said.contains(reason), "{shown}: {said}");
            }
            other => panic!("{shown}: {other:?}"),
        }
        assert!(rule.hits() > 0, "{shown}");
        rule.end();
    }
    let next = service_entry("orders", 82);
    assert_eq!(one(&mut sink, put(&next)).await, Ok(Outcome::Updated));
    assert_eq!(all(&mut sink).await?, [observed(&next.key, ours(&next))]);
    Ok(())
}

#[tokio::test]
async fn an_answer_that_is_lost_leaves_neither_a_duplicate_nor_a_gap() -> Result<()> {
    let bed = Bed::start().await?;
    let (proxy, mut sink) = through_a_proxy(&bed, Duration::from_secs(5)).await?;
    let objects = [service_entry("orders", 80), service_entry("orders", 81)];
    for object in &objects {
        let lost = proxy.rule(On::writes().first(1), Fault::LoseReply);
        // Written, but nobody told us.
        assert!(one(&mut sink, put(object)).await.is_err());
        assert_eq!(lost.hits(), 1);
        let again = one(&mut sink, put(object)).await;
        assert!(again.is_ok(), "{again:?}");
        assert_eq!(all(&mut sink).await?, [observed(&object.key, ours(object))]);
    }
    Ok(())
}

#[tokio::test]
async fn nothing_is_sent_once_the_term_is_over() -> Result<()> {
    let bed = Bed::start().await?;
    let (proxy, sink) = through_a_proxy(&bed, Duration::from_secs(5)).await?;
    let before = proxy.log().len();
    let object = service_entry("orders", 80);
    let result = sink.writer().apply(put(&object), &Permit::never()).await;
    assert!(
        matches!(result, Err(WriteError::NotPermitted(_))),
        "{result:?}"
    );
    let writes = proxy
        .log()
        .into_iter()
        .skip(before)
        .filter(|r| r.is_write());
    assert_eq!(writes.count(), 0);
    Ok(())
}
