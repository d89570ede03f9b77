//! Writes of single objects.

use std::{sync::Arc, time::Duration};

use diolkos_istio::{Kind, Object, ObjectKey, annotation};
use diolkos_kube_ext::{CallError, Client};
use diolkos_model::ContentHash;
use diolkos_sink_api::{Change, Outcome, Permit, WriteError};
use kube::api::ObjectMeta;
use serde_json::{Value, json};

use crate::{
    cache::Learned,
    entry::{Entry, hash_annotation},
    error::{conflicting_managers, explain, is_another_object, is_code, retry, unlabelled},
    fields::{additions, shares_spec},
    request::{self, Ask},
    shared::Shared,
};

/// Makes changes, one object each.
#[derive(Clone)]
pub struct Writer {
    pub(crate) client: Client,
    pub(crate) shared: Arc<Shared>,
    pub(crate) deadline: Duration,
    pub(crate) parallel: usize,
}

impl diolkos_sink_api::Writer for Writer {
    fn parallel(&self) -> usize {
        self.parallel
    }

    async fn apply(&self, change: Change, permit: &Permit) -> Result<Outcome, WriteError> {
        let mut flight = Flight::begin(&self.shared, change.key().clone(), permit);
        match &change {
            Change::Put { object, hash } => self.put(&mut flight, object, *hash).await,
            Change::Delete(_) => self.delete(&mut flight).await,
        }
    }
}

impl Writer {
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
        let meta = match self.apply(flight, &body.json(1, None), false).await? {
            Ok(meta) => meta,
            Err(error) => {
                let conflict = conflicting_managers(&error).map(|managers| belongs_to(&managers));
                return Err(conflict.unwrap_or_else(|| explain(&flight.key, &error)));
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

    /// Writes an object that was ours when we last heard of it, by force. Where it is another one by now, or has
    /// other labels, that is a conflict, and it is looked at first.
    async fn update(
        &self,
        flight: &mut Flight<'_>,
        body: Body<'_>,
        mut known: Entry,
    ) -> Result<Outcome, WriteError> {
        for last in [false, true] {
            let json = body.json(known.generation + 1, Some(&known));
            match self.apply(flight, &json, true).await? {
                Ok(meta) => {
                    let meta = self.alone(flight, body, meta).await?;
                    self.settle(flight, body, meta).await?;
                    return Ok(Outcome::Updated);
                }
                Err(error) if is_another_object(&error) => match self.look(flight).await? {
                    Some(now) if !now.is_ours() => return Err(unlabelled()),
                    // Another replica was faster.
                    Some(now) if now.hash() == Some(body.hash) => return Ok(Outcome::Updated),
                    Some(now) if now.uid == known.uid && !last => known = now,
                    _ => return Err(retry(format!("it changed meanwhile: {error}"))),
                },
                Err(error) => return Err(explain(&flight.key, &error)),
            }
        }
        Err(retry("it keeps changing".to_owned()))
    }

    /// Takes out of the spec what others added to it. That costs a request only where they did.
    async fn alone(
        &self,
        flight: &mut Flight<'_>,
        body: Body<'_>,
        meta: ObjectMeta,
    ) -> Result<ObjectMeta, WriteError> {
        let Some(spec) = additions(&meta, &json!(body.object.spec)) else {
            return Ok(meta);
        };
        let written = self.read(flight, &meta)?;
        // Until the hash is right it is not settled, whatever happens now.
        flight.learned = Learned::Wrote(written.unsettled());
        let patch = json!({
            "metadata": {"uid": meta.uid, "resourceVersion": meta.resource_version},
            "spec": spec,
        });
        let answer = self.ask(flight, &Ask::Merge(&patch)).await?;
        match answer {
            Ok(meta) => Ok(meta),
            Err(error) => Err(explain(&flight.key, &error)),
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
        let written = self.read(flight, &meta)?;
        flight.learned = Learned::Wrote(written.clone());
        if written.hash() == Some(body.hash) {
            return Ok(());
        }
        let json = body.json(written.generation, Some(&written));
        let answer = self.apply(flight, &json, true).await?;
        let meta = answer.map_err(|error| explain(&flight.key, &error))?;
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
        match self.apply(flight, &nothing, false).await? {
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
            match self.ask_for(flight, &Ask::Delete(&known)).await? {
                Ok(dying) => {
                    // With a finalizer it stays for a while, and the watch tells when it is gone.
                    let dying = dying.and_then(|meta| self.shared.read(flight.key.kind, &meta));
                    flight.learned = dying.map_or(Learned::Removed(known), Learned::Wrote);
                    return Ok(Outcome::Deleted);
                }
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

    /// Reads the object's metadata after a conflict.
    async fn look(&self, flight: &mut Flight<'_>) -> Result<Option<Entry>, WriteError> {
        let answer = request::look(&self.client, self.deadline, &flight.key).await;
        let now = match answer.map_err(|error| explain(&flight.key, &error))? {
            Some(meta) => Some(self.read(flight, &meta)?),
            None => None,
        };
        flight.learned = Learned::Saw(now.clone());
        Ok(now)
    }

    fn read(&self, flight: &Flight<'_>, meta: &ObjectMeta) -> Result<Entry, WriteError> {
        let entry = self.shared.read(flight.key.kind, meta);
        entry.ok_or_else(unreadable)
    }

    async fn apply(
        &self,
        flight: &Flight<'_>,
        body: &Value,
        force: bool,
    ) -> Result<Result<ObjectMeta, CallError>, WriteError> {
        self.ask(flight, &Ask::Apply { body, force }).await
    }

    /// As [`Self::ask_for`], where the answer is the object.
    async fn ask(
        &self,
        flight: &Flight<'_>,
        ask: &Ask<'_>,
    ) -> Result<Result<ObjectMeta, CallError>, WriteError> {
        match self.ask_for(flight, ask).await? {
            Ok(Some(meta)) => Ok(Ok(meta)),
            Ok(None) => Err(unreadable()),
            Err(error) => Ok(Err(error)),
        }
    }

    /// Sends a request, if it may be sent. The inner error is the API server's.
    async fn ask_for(
        &self,
        flight: &Flight<'_>,
        ask: &Ask<'_>,
    ) -> Result<Result<Option<ObjectMeta>, CallError>, WriteError> {
        flight.permit.check()?;
        Ok(request::send(&self.client, self.deadline, &flight.key, ask).await)
    }
}

/// An object as it is to be written.
#[derive(Clone, Copy)]
struct Body<'a> {
    object: &'a Object,
    hash: ContentHash,
}

impl Body<'_> {
    /// With the object that is known it is a conflict if that one has changed or is another one.
    fn json(self, generation: i64, known: Option<&Entry>) -> Value {
        let mut json = self.object.manifest();
        let metadata = &mut json["metadata"];
        metadata["annotations"][annotation::HASH] = hash_annotation(self.hash, generation).into();
        if let Some(known) = known {
            metadata["uid"] = known.uid.to_string().into();
            metadata["resourceVersion"] = known.version.to_string().into();
        }
        json
    }
}

/// A write under way. However it ends, the cache hears of it.
struct Flight<'a> {
    shared: &'a Shared,
    key: ObjectKey,
    permit: &'a Permit,
    learned: Learned,
}

impl<'a> Flight<'a> {
    fn begin(shared: &'a Shared, key: ObjectKey, permit: &'a Permit) -> Self {
        shared.update(|cache| cache.begin(&key));
        Self {
            shared,
            key,
            permit,
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

fn unreadable() -> WriteError {
    retry("the API server's answer has no uid or resourceVersion".to_owned())
}
