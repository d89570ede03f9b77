use k8s_openapi::api::core::v1::Pod as ApiPod;
use serde_json::json;

use super::*;

fn follower() -> Follower {
    let settings = PodSettings {
        labels: Arc::new(|_| true),
        localities: false,
    };
    Follower {
        table: Table::new(settings),
        troubles: Troubles::default(),
        told_all: false,
        due: None,
    }
}

fn refused() -> WatchError {
    WatchError::Other("pods is forbidden".into())
}

fn pod(name: &str, ip: &str) -> PodObject {
    let pod = json!({
        "metadata": {"namespace": "shop", "name": name}, "spec": {"containers": []},
        "status": {"phase": "Running", "podIPs": [{"ip": ip}]},
    });
    // The API's own type would take it, too.
    let known: ApiPod = serde_json::from_value(pod.clone()).expect("a Pod");
    assert_eq!(known.metadata.name.as_deref(), Some(name));
    serde_json::from_value(pod).expect("what is read of a Pod")
}

fn trouble(news: &Option<PodNews>) -> Option<&str> {
    match news {
        Some(PodNews::Trouble(Some(why))) => Some(why),
        _ => None,
    }
}

#[tokio::test(start_paused = true)]
async fn all_is_told_once_and_then_what_changed() {
    let mut follower = follower();
    follower.pod(Ok(PodEvent::Init));
    follower.pod(Ok(PodEvent::InitApply(pod("a", "10.0.0.1"))));
    assert_eq!(follower.due, None, "that is not all yet");
    follower.pod(Ok(PodEvent::InitDone));
    assert_eq!(follower.due, Some(Instant::now() + GATHER));
    let Some(PodNews::All(all)) = follower.tell() else {
        panic!("not all");
    };
    assert_eq!(all.len(), 1);
    follower.pod(Ok(PodEvent::Apply(pod("a", "10.0.0.1"))));
    assert_eq!((follower.due, follower.tell()), (None, None), "no change");
    follower.pod(Ok(PodEvent::Delete(pod("a", "10.0.0.1"))));
    assert!(follower.due.is_some());
    let gone = PodNews::Changed(vec![([10, 0, 0, 1].into(), None)]);
    assert_eq!(follower.tell(), Some(gone));
}

#[test]
fn an_empty_cluster_is_known_as_such() {
    let mut follower = follower();
    follower.pod(Ok(PodEvent::Init));
    follower.pod(Ok(PodEvent::InitDone));
    assert!(follower.due.is_some());
    assert_eq!(follower.tell(), Some(PodNews::All(Workloads::new())));
}

#[tokio::test(start_paused = true)]
async fn trouble_is_told_once_and_ends() {
    let mut follower = follower();
    let told = follower.pod(Err(refused()));
    assert_eq!(trouble(&told), Some("cannot watch pods: pods is forbidden"));
    assert_eq!(follower.pod(Err(refused())), None, "the same again");
    assert_eq!(follower.pod(Ok(PodEvent::Init)), None, "that is only a try");
    let told = follower.node(Err(WatchError::Other("away".into())));
    let both = "cannot watch nodes: away; cannot watch pods: pods is forbidden";
    assert_eq!(trouble(&told), Some(both));
    let told = follower.pod(Ok(PodEvent::InitDone));
    assert_eq!(trouble(&told), Some("cannot watch nodes: away"));

    // A watch that works again may have nothing to say.
    let over = follower.troubles.over().expect("an end");
    assert!(over > Instant::now() + QUIET);
    sleep_until(over).await;
    assert_eq!(follower.troubles.expire(), Some(PodNews::Trouble(None)));
    assert_eq!(follower.troubles.over(), None);
}

#[tokio::test(start_paused = true)]
async fn the_longer_a_watch_pauses_the_longer_its_trouble_lasts() {
    let mut follower = follower();
    let mut before = Duration::ZERO;
    for errors in 1..=40 {
        follower.pod(Err(refused()));
        let lasts = follower.troubles.over().expect("an end") - Instant::now();
        let grows = lasts > before || errors > 6;
        assert!(grows && lasts <= LONGEST + QUIET, "{errors}: {lasts:?}");
        before = lasts;
    }
    assert_eq!(before, LONGEST + QUIET);
}
