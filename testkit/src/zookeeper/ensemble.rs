//! Several servers that are one ZooKeeper.

use std::ops::Index;

use anyhow::{Context, Result};

use super::{Builder, Seat, Writer, ZooKeeper};

/// A running ensemble. Dropping it ends its members.
#[derive(Debug)]
pub struct Ensemble {
    members: Vec<ZooKeeper>,
}

impl Ensemble {
    pub(super) async fn launch(options: &Builder, count: usize) -> Result<Self> {
        let seats = (1..=count)
            .map(Seat::numbered)
            .collect::<Result<Vec<_>>>()?;
        let lines: String = seats.iter().map(Seat::line).collect();
        let members = seats
            .into_iter()
            .map(|seat| ZooKeeper::launch(options, seat, &lines))
            .collect::<Result<Vec<_>>>()?;
        for member in &members {
            member.ready().await?;
        }
        Ok(Self { members })
    }

    /// All members, also those that are down.
    pub fn members(&self) -> &[ZooKeeper] {
        &self.members
    }

    /// `127.0.0.1:PORT` of each member for clients without TLS.
    pub fn addresses(&self) -> Vec<String> {
        self.members.iter().map(ZooKeeper::address).collect()
    }

    /// The index of the member that leads.
    ///
    /// # Errors
    /// When none says so: there is no quorum, or an election goes on.
    pub async fn leader(&self) -> Result<usize> {
        let modes = self.members.iter().map(ZooKeeper::mode);
        let modes = futures::future::join_all(modes).await;
        let leads = |mode: &Result<String>| mode.as_ref().is_ok_and(|mode| mode == "leader");
        modes
            .iter()
            .position(leads)
            .with_context(|| format!("no member leads: {modes:?}"))
    }

    /// A session to write with that finds another member when its own is gone.
    ///
    /// # Errors
    /// When no member can be reached.
    pub async fn writer(&self) -> Result<Writer> {
        Writer::connect(&self.addresses().join(",")).await
    }
}

impl Index<usize> for Ensemble {
    type Output = ZooKeeper;

    fn index(&self, member: usize) -> &ZooKeeper {
        &self.members[member]
    }
}
