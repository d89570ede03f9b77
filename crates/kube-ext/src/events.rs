//! Kubernetes Events: what `kubectl describe` shows below an object.
//!
//! Events are for people. So they never hold anything up and never cost much: at most one request a minute
//! ([`EVENT_PAUSE`]) for an object and reason, with the number of times that it happened; a bounded queue; and what cannot be sent is lost.

use std::time::Duration;

use k8s_openapi::{
    api::{
        core::v1::ObjectReference,
        events::v1::{Event, EventSeries},
    },
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::{ObjectMeta, Patch, PatchParams, PostParams},
};
use serde_json::json;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

use crate::{CallError, deadline};
use limit::{Due, Limiter};

mod limit;

/// The usual least time between two requests for the same object and reason.
pub const EVENT_PAUSE: Duration = Duration::from_secs(60);

/// The reporter of all our Events.
const CONTROLLER: &str = "diolkos.io/diolkos";
/// Where Events on objects without a namespace are: kubectl looks for them there.
const CLUSTER_SCOPED: &str = "default";
/// The most notices that wait. More are lost.
const QUEUE: usize = 256;
/// How long a request may take.
const CALL: Duration = Duration::from_secs(5);
/// The longest note that the API takes, in bytes.
const LONGEST_NOTE: usize = 1024;

/// The object that an Event is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct About {
    /// For example `diolkos.io/v1alpha1`.
    pub api_version: String,
    /// For example `Registry`.
    pub kind: String,
    /// `None` for a cluster-scoped object.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// Its uid. Without one `kubectl describe` does not show the Event; `kubectl events` does.
    pub uid: Option<String>,
}

/// Whether somebody should look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// All is well.
    Normal,
    /// Something is not as it should be.
    Warning,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// To which object.
    pub about: About,
    /// Whether somebody should look.
    pub kind: EventKind,
    /// Why, one word in CamelCase: `RemovalsHeld`. Notices of the same object and reason are counted together.
    pub reason: &'static str,
    /// What was done, one word in CamelCase: `Hold`.
    pub action: &'static str,
    /// For people. Above 1,024 bytes it is cut.
    pub note: String,
}

/// Sends Events until it and all its clones are dropped.
#[derive(Clone, Debug)]
pub struct EventRecorder {
    notices: mpsc::Sender<Notice>,
}

impl EventRecorder {
    /// Starts to send. `identity` says which process reports, `pause` is the least time between two requests for
    /// the same object and reason.
    #[must_use]
    pub fn start(client: Client, identity: &str, pause: Duration) -> Self {
        let (notices, inbox) = mpsc::channel(QUEUE);
        let sender = Sender {
            client,
            // The API takes no more.
            identity: identity.chars().take(128).collect(),
            failing: false,
        };
        tokio::spawn(sender.run(inbox, Limiter::new(pause)));
        Self { notices }
    }

    /// Tells of something. Never waits; where too much waits already, it is lost.
    pub fn record(&self, notice: Notice) {
        if let Err(error) = self.notices.try_send(notice) {
            tracing::debug!(%error, "an Event is lost");
        }
    }
}

struct Sender {
    client: Client,
    identity: String,
    /// The last request did not work.
    failing: bool,
}

impl Sender {
    async fn run(mut self, mut inbox: mpsc::Receiver<Notice>, mut limiter: Limiter) {
        loop {
            let due = limiter.next_due();
            let due = async {
                match due {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let ready = tokio::select! {
                notice = inbox.recv() => match notice {
                    Some(notice) => limiter.notice(notice, Instant::now()),
                    None => return,
                },
                () = due => limiter.due(Instant::now()),
            };
            if let Some(due) = ready {
                self.send(due, &mut limiter).await;
            }
        }
    }

    async fn send(&mut self, due: Due, limiter: &mut Limiter) {
        let result = match &due.event {
            Some(event) => match self.repeat(event, &due).await {
                // The server forgets Events after an hour.
                Err(CallError::Kube(kube::Error::Api(status))) if status.code == 404 => {
                    self.create(&due).await
                }
                Err(error) => Err(error),
                Ok(()) => Ok(event.clone()),
            },
            None => self.create(&due).await,
        };
        match result {
            Ok(event) => {
                limiter.sent(&due, event);
                self.failing = false;
            }
            Err(error) if !std::mem::replace(&mut self.failing, true) => {
                tracing::warn!(%error, reason = due.notice.reason, "cannot write Events; they are lost until that works again");
            }
            Err(_) => {}
        }
    }

    /// Gives the name of the new Event.
    async fn create(&self, due: &Due) -> Result<String, CallError> {
        let (event, namespace) = event(due, &self.identity, Timestamp::now());
        let name = event.metadata.name.clone().unwrap_or_default();
        let api: Api<Event> = Api::namespaced(self.client.clone(), &namespace);
        deadline(CALL, api.create(&PostParams::default(), &event)).await?;
        Ok(name)
    }

    async fn repeat(&self, name: &str, due: &Due) -> Result<(), CallError> {
        let namespace = namespace(&due.notice.about);
        let api: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        let patch = json!({"series": series(due, Timestamp::now())});
        let (params, patch) = (PatchParams::default(), Patch::Merge(&patch));
        deadline(CALL, api.patch(name, &params, &patch)).await?;
        Ok(())
    }
}

fn namespace(about: &About) -> &str {
    about.namespace.as_deref().unwrap_or(CLUSTER_SCOPED)
}

fn event(due: &Due, identity: &str, now: Timestamp) -> (Event, String) {
    let Notice {
        about,
        kind,
        reason,
        action,
        note: text,
    } = &due.notice;
    let namespace = namespace(about).to_owned();
    // As other reporters name them; a name of 253 characters is the longest.
    let name: String = about.name.chars().take(230).collect();
    let name = format!(
        "{}.{:016x}",
        name.trim_end_matches(['.', '-']),
        now.as_nanosecond()
    );
    let event = Event {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: Some(namespace.clone()),
            ..ObjectMeta::default()
        },
        event_time: Some(MicroTime(now)),
        reporting_controller: Some(CONTROLLER.to_owned()),
        reporting_instance: Some(identity.to_owned()),
        type_: Some(
            match kind {
                EventKind::Normal => "Normal",
                EventKind::Warning => "Warning",
            }
            .to_owned(),
        ),
        reason: Some((*reason).to_owned()),
        action: Some((*action).to_owned()),
        note: Some(note(text)),
        regarding: Some(ObjectReference {
            api_version: Some(about.api_version.clone()),
            kind: Some(about.kind.clone()),
            namespace: about.namespace.clone(),
            name: Some(about.name.clone()),
            uid: about.uid.clone(),
            ..ObjectReference::default()
        }),
        series: (due.count > 1).then(|| series(due, now)),
        ..Event::default()
    };
    (event, namespace)
}

fn series(due: &Due, now: Timestamp) -> EventSeries {
    EventSeries {
        // The API takes no series of one.
        count: i32::try_from(due.count).unwrap_or(i32::MAX).max(2),
        last_observed_time: MicroTime(now),
    }
}

/// A note that the API takes.
fn note(text: &str) -> String {
    if text.len() <= LONGEST_NOTE {
        return text.to_owned();
    }
    let mut end = LONGEST_NOTE - "…".len();
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_note_is_cut_between_characters() {
        assert_eq!(note("short"), "short");
        for shift in 0..4 {
            let long = "x".repeat(shift) + &"é".repeat(1000);
            let cut = note(&long);
            assert!(cut.len() <= LONGEST_NOTE && cut.len() > LONGEST_NOTE - 5);
            assert!(cut.ends_with("é…"));
        }
    }
}
