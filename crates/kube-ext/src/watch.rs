//! Metadata watches.

use std::{fmt::Debug, time::Duration};

use futures::{Stream, StreamExt as _, stream::BoxStream};
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, PartialObjectMeta},
    runtime::watcher::{self, DefaultBackoff, Event, watcher},
};
use serde::de::DeserializeOwned;
use tokio::time::{sleep, timeout};

/// What a watch tells: `Init`, `InitApply` for each object that is there, `InitDone`; then `Apply` and `Delete`.
/// After a break that the server's history does not cover, it begins with `Init` again: what is not mentioned
/// before `InitDone` is gone.
pub type MetadataEvent = Event<PartialObjectMeta<DynamicObject>>;

type Inner<K> = BoxStream<'static, watcher::Result<Event<K>>>;

/// How long one watch request lasts. The server ends it then, and a dead connection is noticed 5 s later; kube's
/// default is five minutes. Bookmarks keep the place, so the next request goes on from there.
const REQUEST: u32 = 60;

/// The longest wait for a page of the list. kube does not guard that.
const PAGE: Duration = Duration::from_secs(30);

/// A watch failed. It goes on after a pause.
#[derive(thiserror::Error, Debug)]
pub enum WatchError {
    /// The API server does not know the kind.
    #[error("the API server does not serve {plural}.{group}")]
    NotServed {
        /// The plural name of the kind.
        plural: String,
        /// Its API group.
        group: String,
    },
    /// There was no answer to a list.
    #[error("no answer from the API server within {} s", .0.as_secs())]
    Deadline(Duration),
    /// Anything else, in one line.
    #[error("{0}")]
    Other(String),
}

/// Follows the metadata of all objects of a kind in all namespaces, with a back-off of its own (0.8 s to 30 s).
/// Runs only while it is polled; never ends. After an error poll on: the stream pauses by itself.
pub fn metadata_watch(
    client: Client,
    kind: ApiResource,
) -> impl Stream<Item = Result<MetadataEvent, WatchError>> + Send {
    let api: Api<PartialObjectMeta<DynamicObject>> = Api::all_with(client, &kind);
    object_watch(api, kind)
}

/// As [`metadata_watch`], with what `K` keeps of each object.
pub(crate) fn object_watch<K>(
    api: Api<K>,
    kind: ApiResource,
) -> impl Stream<Item = Result<Event<K>, WatchError>> + Send
where
    K: kube::Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let watch = Watch {
        inner: start(&api),
        api,
        kind,
        listing: true,
        backoff: DefaultBackoff::default(),
        pause: None,
    };
    futures::stream::unfold(watch, |mut watch| async move {
        let item = watch.next().await;
        Some((item, watch))
    })
}

struct Watch<K> {
    api: Api<K>,
    kind: ApiResource,
    inner: Inner<K>,
    listing: bool,
    backoff: DefaultBackoff,
    pause: Option<Duration>,
}

impl<K> Watch<K>
where
    K: kube::Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    async fn next(&mut self) -> Result<Event<K>, WatchError> {
        if let Some(pause) = self.pause.take() {
            sleep(pause).await;
        }
        let item = self.poll().await;
        match &item {
            Ok(Event::Init) => self.listing = true,
            Ok(Event::InitDone) => self.listing = false,
            Ok(_) => {}
            Err(_) => self.pause = self.backoff.next(),
        }
        item
    }

    async fn poll(&mut self) -> Result<Event<K>, WatchError> {
        // While it follows, silence is normal; `REQUEST` ends what is dead.
        let limit = if self.listing { PAGE } else { Duration::MAX };
        match timeout(limit, self.inner.next()).await {
            Ok(Some(Ok(event))) => Ok(event),
            Ok(Some(Err(error))) => {
                let why = self.explain(&error);
                // kube lists anew when the history is gone (410) in the stream, but not when a request is
                // refused for it.
                let gone = matches!(&error, watcher::Error::WatchStartFailed(kube::Error::Api(s)) if s.code == 410);
                Err(if gone { self.restart(why) } else { why })
            }
            Ok(None) => Err(self.restart(WatchError::Other("the watch ended".to_owned()))),
            Err(_) => Err(self.restart(WatchError::Deadline(limit))),
        }
    }

    fn restart(&mut self, why: WatchError) -> WatchError {
        self.inner = start(&self.api);
        self.listing = true;
        why
    }

    fn explain(&self, error: &watcher::Error) -> WatchError {
        match error {
            watcher::Error::InitialListFailed(kube::Error::Api(status)) if status.code == 404 => {
                WatchError::NotServed {
                    plural: self.kind.plural.clone(),
                    group: self.kind.group.clone(),
                }
            }
            watcher::Error::InitialListFailed(error)
            | watcher::Error::WatchStartFailed(error)
            | watcher::Error::WatchFailed(error) => WatchError::Other(crate::reason(error)),
            watcher::Error::WatchError(status) => WatchError::Other(status.message.clone()),
            watcher::Error::NoResourceVersion => WatchError::Other(error.to_string()),
        }
    }
}

fn start<K>(api: &Api<K>) -> Inner<K>
where
    K: kube::Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    watcher(api.clone(), watcher::Config::default().timeout(REQUEST)).boxed()
}
