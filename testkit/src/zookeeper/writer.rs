//! A client of another make than the one under test.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result};
use futures::future::{BoxFuture, try_join_all};
use zookeeper_client::{Acl, Acls, Client, CreateMode, CreateOptions, Error, Permission};

use super::SUPER_USER;

/// Longer than any server of a test is away.
const SESSION: Duration = Duration::from_secs(30);
/// Requests that are under way at once in the methods for many nodes.
const PIPELINE: usize = 2_000;
const OPEN: CreateOptions<'static> = CreateMode::Persistent.with_acls(Acls::anyone_all());
/// For a user whose password nobody knows.
const HIDDEN: [Acl; 1] = [Acl::new_const(Permission::ALL, "digest", "nobody:none")];
const EPHEMERAL: CreateOptions<'static> = CreateMode::Ephemeral.with_acls(Acls::anyone_all());

/// A session. It has the rights of the super user, reconnects by itself, and ends when it is dropped.
#[derive(Debug)]
pub struct Writer {
    client: Client,
    servers: String,
}

impl Writer {
    /// Opens a session with servers that are separated by commas, for use through a proxy; else see
    /// [`ZooKeeper::writer`](super::ZooKeeper::writer).
    ///
    /// # Errors
    /// When none can be reached within 30 s.
    pub async fn connect(servers: &str) -> Result<Self> {
        let connector = Client::connector().with_session_timeout(SESSION);
        Self::with(connector, servers).await
    }

    /// Opens a session that is not closed on drop: it and its ephemeral nodes end `time_out` later.
    ///
    /// # Errors
    /// When none can be reached within the time-out.
    pub async fn mortal(servers: &str, time_out: Duration) -> Result<Self> {
        let connector = Client::connector()
            .with_session_timeout(time_out)
            .with_detached();
        Self::with(connector, servers).await
    }

    async fn with(connector: zookeeper_client::Connector, servers: &str) -> Result<Self> {
        let client = connector
            .with_auth("digest", SUPER_USER.as_bytes())
            .connect(servers)
            .await
            .with_context(|| format!("no ZooKeeper session with {servers}"))?;
        Ok(Self {
            client,
            servers: servers.to_owned(),
        })
    }

    /// The session's number, as the server logs it and says in `cons`.
    pub fn session(&self) -> String {
        self.client.session_id().to_string()
    }

    /// Creates a persistent node, and those above it.
    ///
    /// # Errors
    /// When it exists, or the server refuses it.
    pub async fn create(&self, path: &str, data: impl AsRef<[u8]>) -> Result<()> {
        self.create_as(path, data.as_ref(), &OPEN).await
    }

    /// Creates a node that goes with this session, and persistent ones above it.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub async fn create_ephemeral(&self, path: &str, data: impl AsRef<[u8]>) -> Result<()> {
        self.create_as(path, data.as_ref(), &EPHEMERAL).await
    }

    /// Creates a persistent node that only the user `credentials` (`user:password`, scheme `digest`) may read or
    /// change.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub async fn create_guarded(
        &self,
        path: &str,
        data: impl AsRef<[u8]>,
        credentials: &str,
    ) -> Result<()> {
        let user = Client::connector()
            .with_auth("digest", credentials.as_bytes())
            .connect(&self.servers)
            .await?;
        self.parents(path).await?;
        let options = CreateMode::Persistent.with_acls(Acls::creator_all());
        user.create(path, data.as_ref(), &options)
            .await
            .with_context(|| format!("cannot create {path}"))
            .map(drop)
    }

    /// From now on nobody but the super user may read or change a node (those below it stay as they are).
    ///
    /// # Errors
    /// When there is no such node, or the server refuses.
    pub async fn hide(&self, path: &str) -> Result<()> {
        self.set_acl(path, &HIDDEN).await
    }

    /// The end of [`hide`](Self::hide): anybody may do anything.
    ///
    /// # Errors
    /// As [`hide`](Self::hide).
    pub async fn unhide(&self, path: &str) -> Result<()> {
        self.set_acl(path, &Acls::anyone_all()).await
    }

    async fn set_acl(&self, path: &str, acl: &[Acl]) -> Result<()> {
        self.client
            .set_acl(path, acl, None)
            .await
            .with_context(|| format!("cannot set the ACL of {path}"))
            .map(drop)
    }

    async fn create_as(&self, path: &str, data: &[u8], options: &CreateOptions<'_>) -> Result<()> {
        self.parents(path).await?;
        self.client
            .create(path, data, options)
            .await
            .with_context(|| format!("cannot create {path}"))
            .map(drop)
    }

    async fn parents(&self, path: &str) -> Result<()> {
        match parent(path) {
            Some(above) => Ok(self.client.mkdir(above, &OPEN).await?),
            None => Ok(()),
        }
    }

    /// Creates many persistent nodes with their data, and what is missing above them, with thousands of requests
    /// under way at once. Nodes that exist stay as they are.
    ///
    /// # Errors
    /// When the server refuses one.
    pub async fn create_many<P: AsRef<str>, D: AsRef<[u8]>>(&self, nodes: &[(P, D)]) -> Result<()> {
        // In order, so that each stands before those below it: one session's requests are done in their order.
        let mut above = BTreeSet::new();
        for (path, _) in nodes {
            let mut path = path.as_ref();
            while let Some(next) = parent(path) {
                path = next;
                if !above.insert(path) {
                    break;
                }
            }
        }
        let above = above.into_iter().map(|path| (path, &b""[..]));
        let nodes = nodes.iter().map(|(p, d)| (p.as_ref(), d.as_ref()));
        let all: Vec<(&str, &[u8])> = above.chain(nodes).collect();
        for some in all.chunks(PIPELINE) {
            let requests = some.iter().map(|(path, data)| {
                let created = self.client.create(path, data, &OPEN);
                async move {
                    match created.await {
                        Ok(_) | Err(Error::NodeExists) => Ok(()),
                        Err(error) => Err(error).with_context(|| format!("cannot create {path}")),
                    }
                }
            });
            try_join_all(requests).await?;
        }
        Ok(())
    }

    /// Replaces the data of a node.
    ///
    /// # Errors
    /// When there is no such node, or the server refuses.
    pub async fn set(&self, path: &str, data: impl AsRef<[u8]>) -> Result<()> {
        self.client
            .set_data(path, data.as_ref(), None)
            .await
            .with_context(|| format!("cannot set {path}"))
            .map(drop)
    }

    /// Deletes a node.
    ///
    /// # Errors
    /// When there is none, or it has children.
    pub async fn delete(&self, path: &str) -> Result<()> {
        self.client
            .delete(path, None)
            .await
            .with_context(|| format!("cannot delete {path}"))
    }

    /// Deletes a node with all below it.
    ///
    /// # Errors
    /// When there is none, or nodes are added meanwhile.
    pub async fn delete_all(&self, path: &str) -> Result<()> {
        self.delete_tree(path.to_owned()).await
    }

    fn delete_tree(&self, path: String) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let children = self.children(&path).await?;
            for some in children.chunks(PIPELINE) {
                let below = some.iter().map(|name| self.delete_tree(below(&path, name)));
                try_join_all(below).await?;
            }
            self.delete(&path).await
        })
    }

    /// The names of a node's children, sorted.
    ///
    /// # Errors
    /// When there is no such node.
    pub async fn children(&self, path: &str) -> Result<Vec<String>> {
        let mut names = self
            .client
            .list_children(path)
            .await
            .with_context(|| format!("cannot list {path}"))?;
        names.sort();
        Ok(names)
    }

    /// The data of a node.
    ///
    /// # Errors
    /// When there is no such node.
    pub async fn data(&self, path: &str) -> Result<Vec<u8>> {
        let read = self.client.get_data(path).await;
        let (data, _) = read.with_context(|| format!("cannot read {path}"))?;
        Ok(data)
    }

    /// Whether there is such a node.
    ///
    /// # Errors
    /// When the server cannot be reached.
    pub async fn exists(&self, path: &str) -> Result<bool> {
        Ok(self.client.check_stat(path).await?.is_some())
    }
}

fn below(path: &str, name: &str) -> String {
    format!("{}/{name}", path.trim_end_matches('/'))
}

/// The path above this one, unless that is the root.
fn parent(path: &str) -> Option<&str> {
    let (above, _) = path.rsplit_once('/')?;
    (!above.is_empty()).then_some(above)
}
