//! What others do with our objects.

use anyhow::Result;
use diolkos_sink_api::{Outcome, State};
use serde_json::json;

use crate::support::{
    Bed, SOON, all, changed, delete, drifts, nothing_but, observed, one, ours, put, service_entry,
    through_a_proxy, workload_entry,
};

#[tokio::test]
async fn hand_edits_and_removals_are_told_and_repaired() -> Result<()> {
    let bed = Bed::start().await?;
    let mut sink = bed.sink().await?;
    let object = service_entry("orders", 80);
    assert_eq!(one(&mut sink, put(&object)).await, Ok(Outcome::Created));

    let edit = r#"{"spec": {"hosts": ["elsewhere.example"]}}"#;
    bed.patch(&object.key, edit).await?;
    drifts(&mut sink, vec![observed(&object.key, changed())]).await?;
    assert_eq!(one(&mut sink, put(&object)).await, Ok(Outcome::Updated));
    assert_eq!(
        bed.get(&object.key).await?["spec"]["hosts"],
        json!(["orders.service.consul"])
    );

    // While no sink runs.
    drop(sink);
    bed.patch(&object.key, edit).await?;
    let mut sink = bed.blind_sink();
    assert_eq!(all(&mut sink).await?, [observed(&object.key, changed())]);
    assert_eq!(one(&mut sink, put(&object)).await, Ok(Outcome::Updated));
    assert_eq!(
        all(&mut sink).await?,
        [observed(&object.key, ours(&object))]
    );

    // The hash taken away counts as a change, too.
    bed.patch(
        &object.key,
        r#"{"metadata": {"annotations": {"diolkos.io/hash": null}}}"#,
    )
    .await?;
    drifts(&mut sink, vec![observed(&object.key, changed())]).await?;
    assert_eq!(one(&mut sink, put(&object)).await, Ok(Outcome::Updated));

    bed.delete(&object.key).await?;
    drifts(&mut sink, vec![observed(&object.key, State::Gone)]).await?;
    assert_eq!(one(&mut sink, put(&object)).await, Ok(Outcome::Created));

    // Let go: somebody took our label off.
    bed.patch(
        &object.key,
        r#"{"metadata": {"labels": {"app.kubernetes.io/managed-by": "Helm"}}}"#,
    )
    .await?;
    drifts(&mut sink, vec![observed(&object.key, State::Foreign)]).await?;
    assert!(one(&mut sink, delete(&object)).await.is_err());
    bed.get(&object.key).await?;
    Ok(())
}

#[tokio::test]
async fn what_others_add_to_metadata_and_status_survives_our_updates() -> Result<()> {
    let bed = Bed::start().await?;
    let mut sink = bed.sink().await?;
    let marker = service_entry("marker", 80);
    for object in [service_entry("orders", 80), marker.clone()] {
        assert_eq!(one(&mut sink, put(&object)).await, Ok(Outcome::Created));
    }
    let object = service_entry("orders", 81);
    let key = &object.key;
    bed.patch(
        key,
        r#"{"metadata": {"labels": {"team": "a"}, "annotations": {"note": "b"}}}"#,
    )
    .await?;
    let status = json!({"status": {"addresses": [{"value": "240.240.0.1", "host": "orders.service.consul"}]}});
    let args = [
        "patch",
        "serviceentries",
        "-n",
        &key.namespace,
        &key.name,
        "--subresource=status",
        "--type=merge",
        "-p",
    ];
    bed.kubernetes
        .kubectl(&[&args[..], &[&status.to_string()]].concat())
        .await?;
    // None of that is a change of what we wrote.
    nothing_but(&bed, &mut sink, &marker.key).await?;

    bed.patch(key, r#"{"spec": {"exportTo": ["."]}}"#).await?;
    drifts(&mut sink, vec![observed(key, changed())]).await?;
    assert_eq!(one(&mut sink, put(&object)).await, Ok(Outcome::Updated));
    let now = bed.get(key).await?;
    assert_eq!(now["spec"]["ports"][0]["number"], 81);
    assert_eq!(now["spec"].get("exportTo"), None, "the spec is ours alone");
    assert_eq!(now["metadata"]["labels"]["team"], "a");
    assert_eq!(now["metadata"]["annotations"]["note"], "b");
    assert_eq!(now["status"], status["status"]);
    assert_eq!(
        all(&mut bed.blind_sink()).await?,
        [observed(key, ours(&object))]
    );
    Ok(())
}

#[tokio::test]
async fn what_others_add_to_a_spec_is_taken_out() -> Result<()> {
    let bed = Bed::start().await?;
    let (proxy, mut sink) = through_a_proxy(&bed, SOON).await?;
    let entry = service_entry("orders", 80);
    let workload = workload_entry("orders-1", "10.0.0.1");
    let port = r#"{"spec": {"ports": [{"number": 80, "name": "http", "protocol": "HTTP"}, {"number": 9999, "name": "tcp", "protocol": "TCP"}]}}"#;
    for (object, addition) in [
        (&entry, port),
        (
            &entry,
            r#"{"spec": {"exportTo": ["."], "subjectAltNames": ["spiffe://x"]}}"#,
        ),
        (
            &entry,
            r#"{"spec": {"workloadSelector": {"labels": {"team": "a"}}}}"#,
        ),
        (
            &workload,
            r#"{"spec": {"labels": {"version": "v9"}, "weight": 7}}"#,
        ),
    ] {
        let key = &object.key;
        assert!(one(&mut sink, put(object)).await.is_ok());
        let before = bed.get(key).await?["spec"].clone();
        bed.patch(key, r#"{"metadata": {"labels": {"team": "a"}}}"#)
            .await?;
        bed.patch(key, addition).await?;
        assert_ne!(bed.get(key).await?["spec"], before, "{addition}");
        drifts(&mut sink, vec![observed(key, changed())]).await?;
        assert_eq!(one(&mut sink, put(object)).await, Ok(Outcome::Updated));
        let now = bed.get(key).await?;
        assert_eq!(now["spec"], before, "{addition}");
        assert_eq!(now["metadata"]["labels"]["team"], "a", "not ours");
    }
    let expected = [
        observed(&workload.key, ours(&workload)),
        observed(&entry.key, ours(&entry)),
    ];
    assert_eq!(all(&mut bed.blind_sink()).await?, expected);
    // It is settled: the next change costs one request again.
    let before = proxy.log().len();
    assert_eq!(
        one(&mut sink, put(&service_entry("orders", 81))).await,
        Ok(Outcome::Updated)
    );
    let log = proxy.log().split_off(before);
    assert_eq!(log.iter().filter(|r| r.is_write()).count(), 1, "{log:?}");
    Ok(())
}

#[tokio::test]
async fn a_finalizer_delays_a_removal_and_is_no_drift() -> Result<()> {
    let bed = Bed::start().await?;
    let mut sink = bed.sink().await?;
    let (object, marker) = (
        workload_entry("held", "10.0.0.1"),
        workload_entry("marker", "10.0.0.2"),
    );
    for object in [&object, &marker] {
        assert_eq!(one(&mut sink, put(object)).await, Ok(Outcome::Created));
    }
    bed.patch(
        &object.key,
        r#"{"metadata": {"finalizers": ["example.com/hold"]}}"#,
    )
    .await?;
    assert_eq!(one(&mut sink, delete(&object)).await, Ok(Outcome::Deleted));
    nothing_but(&bed, &mut sink, &marker.key).await?;
    bed.patch(&object.key, r#"{"metadata": {"finalizers": null}}"#)
        .await?;
    drifts(&mut sink, vec![observed(&object.key, State::Gone)]).await
}
