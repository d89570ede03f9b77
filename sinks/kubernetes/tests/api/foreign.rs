//! Objects of others that have our names stay as they are.

use anyhow::Result;
use diolkos_istio::{Object, ObjectKey};
use diolkos_sink_api::{Outcome, State};
use serde_json::Value;

use crate::support::{
    Bed, content, delete, drifts, foreign_reason, observed, one, put, service_entry, workload_entry,
};

/// The object as somebody else would make it: without our labels and annotations.
fn unlabelled(object: &Object) -> Value {
    let mut manifest = object.manifest();
    if let Some(metadata) = manifest["metadata"].as_object_mut() {
        metadata.remove("labels");
        metadata.remove("annotations");
    }
    manifest
}

#[tokio::test]
async fn a_foreign_object_is_left_alone_whether_it_is_known_or_not() -> Result<()> {
    let bed = Bed::start().await?;
    let mut sink = bed.sink().await?;
    let object = service_entry("orders", 80);
    let theirs = service_entry("orders", 9999);
    bed.kubernetes
        .apply(&unlabelled(&theirs).to_string())
        .await?;
    let before = bed.get(&object.key).await?;

    // A sink that has not heard of it.
    let mut blind = bed.blind_sink();
    let reason = foreign_reason(one(&mut blind, put(&object)).await)?;
    assert!(reason.contains("kubectl"), "{reason}");
    assert_eq!(
        one(&mut blind, delete(&object)).await,
        Ok(Outcome::AlreadyGone)
    );

    // One that has.
    drifts(&mut sink, vec![observed(&object.key, State::Foreign)]).await?;
    foreign_reason(one(&mut sink, put(&object)).await)?;
    foreign_reason(one(&mut sink, delete(&object)).await)?;
    assert_eq!(
        bed.get(&object.key).await?,
        before,
        "not even a resourceVersion moved"
    );

    // The name is free again.
    bed.delete(&object.key).await?;
    drifts(&mut sink, vec![observed(&object.key, State::Gone)]).await?;
    assert_eq!(one(&mut sink, put(&object)).await, Ok(Outcome::Created));
    Ok(())
}

#[tokio::test]
async fn a_foreign_object_that_says_the_same_is_given_back() -> Result<()> {
    let bed = Bed::start().await?;
    for object in [
        service_entry("same", 80),
        workload_entry("same", "10.0.0.1"),
    ] {
        bed.kubernetes
            .apply(&unlabelled(&object).to_string())
            .await?;
        let before = content(bed.get(&object.key).await?)?;
        let mut blind = bed.blind_sink();
        let reason = foreign_reason(one(&mut blind, put(&object)).await)?;
        assert!(reason.contains("kubectl"), "{reason}");
        assert_eq!(content(bed.get(&object.key).await?)?, before);
        // From now on it is known.
        foreign_reason(one(&mut blind, put(&object)).await)?;
    }
    Ok(())
}

/// Somebody takes an object of ours over before we have heard of it: neither a change nor a removal hits it.
async fn is_not_hit(take_over: impl AsyncFn(&Bed, &ObjectKey) -> Result<()> + Sync) -> Result<()> {
    let bed = Bed::start().await?;
    let mut sink = bed.sink().await?;
    let next = service_entry("orders", 81);
    for change in [put(&next), delete(&next)] {
        let object = service_entry("orders", 80);
        assert_eq!(one(&mut sink, put(&object)).await, Ok(Outcome::Created));
        let before = bed.behind_its_back(async |bed| {
            take_over(bed, &object.key).await?;
            bed.get(&object.key).await
        })?;
        foreign_reason(one(&mut sink, change).await)?;
        assert_eq!(bed.get(&object.key).await?, before);
        drifts(&mut sink, vec![observed(&object.key, State::Foreign)]).await?;
        bed.delete(&object.key).await?;
        drifts(&mut sink, vec![observed(&object.key, State::Gone)]).await?;
    }
    Ok(())
}

#[tokio::test]
async fn an_object_made_anew_by_somebody_else_is_not_hit() -> Result<()> {
    is_not_hit(async |bed, key| {
        bed.delete(key).await?;
        let theirs = unlabelled(&service_entry("orders", 9999)).to_string();
        bed.kubernetes.apply(&theirs).await
    })
    .await
}

#[tokio::test]
async fn a_label_that_was_taken_off_a_moment_before_is_not_put_back() -> Result<()> {
    is_not_hit(async |bed, key| {
        let unlabel = r#"{"metadata": {"labels": {"app.kubernetes.io/managed-by": null}}}"#;
        bed.patch(key, unlabel).await
    })
    .await
}

#[tokio::test]
async fn stale_knowledge_of_our_own_objects_is_mended() -> Result<()> {
    let bed = Bed::start().await?;
    let mut sink = bed.sink().await?;
    let object = workload_entry("w", "10.0.0.1");

    // A delete: the version moved, but it is still ours.
    assert_eq!(one(&mut sink, put(&object)).await, Ok(Outcome::Created));
    let touch = async |bed: &Bed| {
        bed.patch(&object.key, r#"{"metadata": {"labels": {"team": "a"}}}"#)
            .await
    };
    bed.behind_its_back(touch)?;
    assert_eq!(one(&mut sink, delete(&object)).await, Ok(Outcome::Deleted));

    // A delete: it is gone.
    assert_eq!(one(&mut sink, put(&object)).await, Ok(Outcome::Created));
    bed.behind_its_back(async |bed| bed.delete(&object.key).await)?;
    assert_eq!(
        one(&mut sink, delete(&object)).await,
        Ok(Outcome::AlreadyGone)
    );

    // A put: it is gone. The next try makes it anew.
    assert_eq!(one(&mut sink, put(&object)).await, Ok(Outcome::Created));
    bed.behind_its_back(async |bed| bed.delete(&object.key).await)?;
    let error = one(&mut sink, put(&object))
        .await
        .expect_err("the uid is another");
    assert_eq!(error.category(), "WriteFailed", "{error}");
    assert_eq!(one(&mut sink, put(&object)).await, Ok(Outcome::Created));

    // A put: the spec was edited, so that the generation is another than we guess.
    bed.behind_its_back(async |bed| {
        bed.patch(&object.key, r#"{"spec": {"address": "10.9.9.9"}}"#)
            .await
    })?;
    let next = workload_entry("w", "10.0.0.2");
    assert_eq!(one(&mut sink, put(&next)).await, Ok(Outcome::Updated));
    let now = bed.get(&object.key).await?;
    assert_eq!(
        now["metadata"]["annotations"]["diolkos.io/hash"],
        format!("{}.3", next.content_hash())
    );
    assert_eq!(now["spec"]["address"], "10.0.0.2");
    Ok(())
}
