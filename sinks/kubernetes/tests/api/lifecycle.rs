//! From nothing to written, changed, removed; and what that costs.

use anyhow::Result;
use diolkos_istio::{Object, Spec};
use diolkos_sink_api::Outcome;
use diolkos_testkit::eventually;

use crate::support::{
    Bed, NAMESPACE, SOON, all, all_at_once, delete, drifts, nothing_but, observed, one, ours, put,
    service_entry, workload_entry,
};

fn address_of(object: &Object) -> &str {
    match &object.spec {
        Spec::WorkloadEntry(spec) => &spec.address,
        Spec::ServiceEntry(_) => "",
    }
}

#[tokio::test]
async fn objects_are_made_changed_and_removed_with_one_request_each() -> Result<()> {
    let bed = Bed::start().await?;
    let mut sink = bed.sink().await?;
    bed.cost(0, &[("list", 2)]).await;

    let mut objects: Vec<Object> = (0..20)
        .map(|n| workload_entry(&format!("w{n:02}"), &format!("10.0.0.{n}")))
        .collect();
    let made = all_at_once(&sink, objects.iter().map(put)).await;
    assert!(
        made.values().all(|r| *r == Ok(Outcome::Created)),
        "{made:?}"
    );
    bed.cost(2, &[("patch", 20)]).await;
    let entry = bed.get(&objects[3].key).await?;
    assert_eq!(entry["spec"]["address"], "10.0.0.3");
    assert_eq!(entry["metadata"]["generation"], 1);
    assert_eq!(
        entry["metadata"]["annotations"]["diolkos.io/hash"],
        format!("{}.1", objects[3].content_hash())
    );
    assert_eq!(
        entry["metadata"]["managedFields"][0]["operation"], "Apply",
        "never by POST"
    );

    for object in &mut objects {
        let address = address_of(object).replace("10.0.0", "10.0.1");
        *object = workload_entry(&object.key.name, &address);
    }
    let changed = all_at_once(&sink, objects.iter().map(put)).await;
    assert!(
        changed.values().all(|r| *r == Ok(Outcome::Updated)),
        "{changed:?}"
    );
    bed.cost(22, &[("patch", 20)]).await;
    assert_eq!(
        bed.get(&objects[3].key).await?["spec"]["address"],
        "10.0.1.3"
    );

    let removed = all_at_once(&sink, objects[1..].iter().map(delete)).await;
    assert!(
        removed.values().all(|r| *r == Ok(Outcome::Deleted)),
        "{removed:?}"
    );
    bed.cost(42, &[("delete", 19)]).await;
    let again = all_at_once(&sink, objects[1..].iter().map(delete)).await;
    assert!(
        again.values().all(|r| *r == Ok(Outcome::AlreadyGone)),
        "{again:?}"
    );

    // None of that was drift, and what was removed can be made again.
    nothing_but(&bed, &mut sink, &objects[0].key).await?;
    assert_eq!(one(&mut sink, put(&objects[5])).await, Ok(Outcome::Created));
    nothing_but(&bed, &mut sink, &objects[5].key).await?;
    bed.cost(42, &[("delete", 19), ("patch", 1)]).await;
    Ok(())
}

#[tokio::test]
async fn a_restart_finds_what_was_written() -> Result<()> {
    let bed = Bed::start().await?;
    let mut sink = bed.sink().await?;
    let mut objects = vec![
        service_entry("orders", 80),
        workload_entry("orders-1", "10.0.0.1"),
    ];
    let expect = |objects: &[Object]| {
        let mut all: Vec<_> = objects.iter().map(|o| observed(&o.key, ours(o))).collect();
        all.sort_by(|a, b| a.key.cmp(&b.key));
        all
    };
    all_at_once(&sink, objects.iter().map(put)).await;
    assert_eq!(all(&mut sink).await?, expect(&objects));
    assert_eq!(all(&mut bed.blind_sink()).await?, expect(&objects));

    // A change of the spec, and one of labels alone, which does not move the generation.
    objects[0] = service_entry("orders", 81);
    objects[1].labels.insert("team".into(), "a".into());
    let results = all_at_once(&sink, objects.iter().map(put)).await;
    assert!(
        results.values().all(|r| *r == Ok(Outcome::Updated)),
        "{results:?}"
    );
    assert_eq!(all(&mut sink).await?, expect(&objects));
    assert_eq!(all(&mut bed.blind_sink()).await?, expect(&objects));
    let generations = [
        bed.get(&objects[0].key).await?,
        bed.get(&objects[1].key).await?,
    ]
    .map(|o| o["metadata"]["generation"].clone());
    assert_eq!(generations, [2, 1]);

    // A label that is dropped goes away.
    objects[1].labels.remove("team");
    assert_eq!(one(&mut sink, put(&objects[1])).await, Ok(Outcome::Updated));
    assert_eq!(
        bed.get(&objects[1].key).await?["metadata"]["labels"].get("team"),
        None
    );
    assert_eq!(all(&mut bed.blind_sink()).await?, expect(&objects));
    Ok(())
}

#[tokio::test]
async fn two_sinks_that_write_the_same_agree() -> Result<()> {
    let bed = Bed::start().await?;
    let (mut a, mut b) = (bed.sink().await?, bed.sink().await?);
    let objects: Vec<Object> = (0..10)
        .map(|n| service_entry(&format!("s{n}"), 80))
        .collect();
    let changes = || objects.iter().map(put).collect::<Vec<_>>();
    let (first, second) = tokio::join!(all_at_once(&a, changes()), all_at_once(&b, changes()));
    for (key, result) in first.into_iter().chain(second) {
        assert!(result.is_ok(), "{key}: {result:?}");
    }
    for sink in [&mut a, &mut b] {
        eventually(SOON, "the hashes of all", async || {
            let seen = all(sink).await.ok()?;
            let expected: Vec<_> = objects.iter().map(|o| observed(&o.key, ours(o))).collect();
            (seen == expected).then_some(())
        })
        .await;
    }
    let listed = bed
        .kubernetes
        .get_json(&["get", "serviceentries", "-n", NAMESPACE])
        .await?;
    assert_eq!(listed["items"].as_array().map(Vec::len), Some(10));

    // What one removes the other is told.
    assert_eq!(one(&mut a, delete(&objects[0])).await, Ok(Outcome::Deleted));
    drifts(
        &mut b,
        vec![observed(&objects[0].key, diolkos_sink_api::State::Gone)],
    )
    .await
}
