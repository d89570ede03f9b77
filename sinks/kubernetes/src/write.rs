//! Writes of single objects.

use std::{sync::Arc, time::Duration};

use diolkos_istio::{Kind, Object, ObjectKey, annotation, label};
use diolkos_kube_ext::{CallError, Client, deadline};
use diolkos_model::ContentHash;
use diolkos_sink_api::{Applied, Change, Outcome, WriteError};
use kube::{
    Api,
    api::{
        ApiResource, DeleteParams, DynamicObject, ObjectMeta, PartialObjectMeta, Patch,
        PatchParams, Preconditions,
    },
};
use serde_json::{Value, json};

use crate::{
    cache::Learned,
    entry::{Entry, Uid, hash_annotation},
    error::{conflicting_managers, explain, is_another_object, is_code, retry, unlabelled},
    resource,
    shared::Shared,
};

/// Makes changes, one object each.
#[derive(Clone)]
pub(crate) struct Writer {
    pub(crate) client: Client,
    pub(crate) shared: Arc<Shared>,
    pub(crate) deadline: Duration,
}

impl Writer {
    pub(crate) async fn change(&self, change: Change) -> Applied {
        let key = change.key().clone();
        let mut flight = Flight::begin(&self.shared, key.clone());
        let result = match &change {
            Change::Put { object, hash } => self.put(&mut flight, object, *hash).await,
            Change::Delete(_) => self.delete(&mut flight).await,
        };
        Applied { key, result }
    }

    async fn put(
        &self,
        flight: &mut Flight<'_>,
        object: &Object,
        hash: ContentHash,
    ) -> Result<Outcome, WriteError> {
        let body = Body { object, hash };
        match self.shared.get(&flight.key) {
            None => self.create(flight, body).await,
            Some(known) if known.is_ours() => self.update(flight, body, known).await,
            Some(_) => Err(unlabelled()),
        }
    }

    /// Writes an object that we know nothing of. Not by force: if there is one that we have not heard of yet, its
    /// fields are another manager's, and that is a conflict.
    async fn create(&self, flight: &mut Flight<'_>, body: Body<'_>) -> Result<Outcome, WriteError> {
        let key = flight.key.clone();
        let meta = match self.apply(&key, &body.json(1, None), false).await {
            Ok(meta) => meta,
            Err(error) => {
                let conflict = conflicting_managers(&error).map(|managers| belongs_to(&managers));
                return Err(conflict.unwrap_or_else(|| explain(&key, &error)));
            }
        };
        if let Some(others) = shares_spec(&meta) {
            return self.give_back(flight, &meta, others).await;
        }
        let created = meta.generation == Some(1);
        self.settle(flight, body, meta).await?;
        Ok(if created {
            Outcome::Created
        } else {
            Outcome::Updated
        })
    }

    /// Writes an object that was ours when we last heard of it. The uid makes it a conflict if that one is gone.
    async fn update(
        &self,
        flight: &mut Flight<'_>,
        body: Body<'_>,
        known: Entry,
    ) -> Result<Outcome, WriteError> {
        let key = flight.key.clone();
        let json = body.json(known.generation + 1, Some(known.uid));
        match self.apply(&key, &json, true).await {
            Ok(meta) => {
                self.settle(flight, body, meta).await?;
                Ok(Outcome::Updated)
            }
            Err(error) if is_another_object(&error) => match self.look(flight).await? {
                Some(now) if !now.is_ours() => Err(unlabelled()),
                _ => Err(retry(format!("it changed meanwhile: {error}"))),
            },
            Err(error) => Err(explain(&key, &error)),
        }
    }

    /// Ends a write. The annotation holds the generation, which is known only now: if the guess was wrong (only
    /// labels changed, or somebody changed the spec meanwhile), it is written once more.
    async fn settle(
        &self,
        flight: &mut Flight<'_>,
        body: Body<'_>,
        meta: ObjectMeta,
    ) -> Result<(), WriteError> {
        let key = flight.key.clone();
        let written = self.read(flight, &meta)?;
        flight.learned = Learned::Wrote(written.clone());
        if written.hash() == Some(body.hash) {
            return Ok(());
        }
        let json = body.json(written.generation, Some(written.uid));
        let meta = self
            .apply(&key, &json, true)
            .await
            .map_err(|error| explain(&key, &error))?;
        let written = self.read(flight, &meta)?;
        let settled = written.hash() == Some(body.hash);
        flight.learned = Learned::Wrote(written);
        if settled {
            Ok(())
        } else {
            Err(retry(
                "somebody else changes it at the same time".to_owned(),
            ))
        }
    }

    /// Takes back a write that fell in with somebody else's object: all that we set had the same value there, so
    /// it was no conflict. An apply of nothing removes what is ours alone, our labels first of all.
    async fn give_back(
        &self,
        flight: &mut Flight<'_>,
        meta: &ObjectMeta,
        others: String,
    ) -> Result<Outcome, WriteError> {
        let key = flight.key.clone();
        let nothing = json!({
            "apiVersion": Kind::API_VERSION,
            "kind": key.kind.name(),
            "metadata": {"name": key.name, "namespace": key.namespace, "uid": meta.uid},
        });
        match self.apply(&key, &nothing, false).await {
            Ok(meta) => {
                let entry = self.read(flight, &meta)?;
                flight.learned = Learned::Saw(Some(entry));
                Err(belongs_to(&others))
            }
            Err(error) => {
                tracing::error!(object = %key, %error, managers = others,
                    "put our labels on an object that is not ours and cannot take them off; remove them by hand");
                Err(explain(&key, &error))
            }
        }
    }

    async fn delete(&self, flight: &mut Flight<'_>) -> Result<Outcome, WriteError> {
        let Some(mut known) = self.shared.get(&flight.key) else {
            return Ok(Outcome::AlreadyGone);
        };
        if !known.is_ours() {
            return Err(unlabelled());
        }
        for last in [false, true] {
            match self.remove(flight, &known).await {
                Ok(()) => return Ok(Outcome::Deleted),
                Err(error) if is_code(&error, 404) => {
                    flight.learned = Learned::Removed(known);
                    return Ok(Outcome::AlreadyGone);
                }
                Err(error) if is_code(&error, 409) && !last => match self.look(flight).await? {
                    None => return Ok(Outcome::AlreadyGone),
                    Some(now) if !now.is_ours() => return Err(unlabelled()),
                    Some(now) => known = now,
                },
                Err(error) => return Err(explain(&flight.key, &error)),
            }
        }
        Err(retry("it keeps changing".to_owned()))
    }

    async fn remove(&self, flight: &mut Flight<'_>, known: &Entry) -> Result<(), CallError> {
        let preconditions = Preconditions {
            resource_version: Some(known.version.to_string()),
            uid: Some(known.uid.to_string()),
        };
        let params = DeleteParams::default().preconditions(preconditions);
        let answer = deadline(
            self.deadline,
            self.api(&flight.key).delete(&flight.key.name, &params),
        )
        .await?;
        // With a finalizer it stays for a while: the answer is the object, and the watch tells when it is gone.
        let dying = answer
            .left()
            .and_then(|object| self.shared.read(flight.key.kind, &object.metadata));
        flight.learned = dying.map_or_else(|| Learned::Removed(known.clone()), Learned::Wrote);
        Ok(())
    }

    /// Reads the object's metadata after a conflict.
    async fn look(&self, flight: &mut Flight<'_>) -> Result<Option<Entry>, WriteError> {
        let key = flight.key.clone();
        let answer = deadline(self.deadline, self.api(&key).get_metadata_opt(&key.name)).await;
        let now = match answer.map_err(|error| explain(&key, &error))? {
            Some(object) => Some(self.read(flight, &object.metadata)?),
            None => None,
        };
        flight.learned = Learned::Saw(now.clone());
        Ok(now)
    }

    fn read(&self, flight: &Flight<'_>, meta: &ObjectMeta) -> Result<Entry, WriteError> {
        let entry = self.shared.read(flight.key.kind, meta);
        entry.ok_or_else(|| {
            retry("the API server's answer has no uid or resourceVersion".to_owned())
        })
    }

    async fn apply(
        &self,
        key: &ObjectKey,
        body: &Value,
        force: bool,
    ) -> Result<ObjectMeta, CallError> {
        let params = PatchParams {
            force,
            ..PatchParams::apply(label::MANAGER)
        };
        let object = deadline(
            self.deadline,
            self.api(key).patch(&key.name, &params, &Patch::Apply(body)),
        )
        .await?;
        Ok(object.metadata)
    }

    /// Answers hold metadata only.
    fn api(&self, key: &ObjectKey) -> Api<PartialObjectMeta<DynamicObject>> {
        let resource: ApiResource = resource(key.kind);
        Api::namespaced_with(self.client.clone(), &key.namespace, &resource)
    }
}

/// An object as it is to be written.
#[derive(Clone, Copy)]
struct Body<'a> {
    object: &'a Object,
    hash: ContentHash,
}

impl Body<'_> {
    fn json(self, generation: i64, uid: Option<Uid>) -> Value {
        let mut json = self.object.manifest();
        json["metadata"]["annotations"][annotation::HASH] =
            hash_annotation(self.hash, generation).into();
        if let Some(uid) = uid {
            json["metadata"]["uid"] = uid.to_string().into();
        }
        json
    }
}

/// A write under way. However it ends, the cache hears of it.
struct Flight<'a> {
    shared: &'a Shared,
    key: ObjectKey,
    learned: Learned,
}

impl<'a> Flight<'a> {
    fn begin(shared: &'a Shared, key: ObjectKey) -> Self {
        shared.update(|cache| cache.begin(&key));
        Self {
            shared,
            key,
            learned: Learned::Nothing,
        }
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        let learned = std::mem::replace(&mut self.learned, Learned::Nothing);
        self.shared.update(|cache| cache.settle(&self.key, learned));
    }
}

fn belongs_to(managers: &str) -> WriteError {
    WriteError::Foreign(format!("its fields belong to {managers}"))
}

/// The managers that own a part of the spec that we own as well. What we made ourselves has none: another manager
/// comes to share a field only by writing the same value, and the first writer of a foreign object did.
fn shares_spec(meta: &ObjectMeta) -> Option<String> {
    let entries = meta.managed_fields.as_deref().unwrap_or_default();
    let specs = entries
        .iter()
        .filter(|entry| entry.subresource.as_deref().unwrap_or_default().is_empty());
    let specs = specs.filter_map(|entry| {
        let spec = entry.fields_v1.as_ref()?.0.get("f:spec")?.as_object()?;
        Some((entry.manager.as_deref().unwrap_or_default(), spec))
    });
    let (ours, theirs): (Vec<_>, Vec<_>) =
        specs.partition(|(manager, _)| *manager == label::MANAGER);
    let shared = |spec: &serde_json::Map<String, Value>| {
        ours.iter()
            .any(|(_, mine)| mine.keys().any(|field| spec.contains_key(field)))
    };
    let names: Vec<&str> = theirs
        .into_iter()
        .filter(|(_, spec)| shared(spec))
        .map(|(name, _)| name)
        .collect();
    (!names.is_empty()).then(|| names.join(", "))
}
