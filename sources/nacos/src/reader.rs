//! Reading one namespace: over gRPC where there is a connection, else by HTTP.

use std::{collections::HashSet, sync::Arc};

use diolkos_nacos::{Connection, Error, Http, Name, Page};

use crate::{
    Groups,
    namespace::{Answer, Ask, Listing},
};

/// The entries of a page. Servers may give fewer, but then on each page. What is on one page cannot
/// be torn.
pub(crate) const PAGE: u32 = 5_000;
/// How often a list is read that changed while it was read.
const READS: usize = 3;
/// Pages of one list at most: what says that it has more is broken.
const PAGES: u32 = 100_000;

/// How a namespace is read. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Reader {
    pub(crate) namespace: Arc<str>,
    /// `None`: all goes by HTTP.
    pub(crate) connection: Option<Connection>,
    /// Whether the server tells of services that come and go.
    pub(crate) hints: bool,
    /// The same server's.
    pub(crate) http: Http,
}

/// One reading of all pages.
struct Pass {
    names: HashSet<Name>,
    pages: u32,
    /// All pages told the same total, and so many names came.
    whole: bool,
}

impl Reader {
    /// The names of all services. To be `sure`, what has several pages is read twice: a service that
    /// moves from a page that is still to be read to one that was, is on neither.
    ///
    /// # Errors
    /// When a page cannot be read.
    pub(crate) async fn list(&self, groups: &Groups, sure: bool) -> Result<Listing, Error> {
        let mut listing = Listing {
            certain: sure,
            ..Listing::default()
        };
        match groups {
            Groups::All => self.list_group(None, sure, &mut listing).await?,
            Groups::Named(groups) => {
                for group in groups {
                    self.list_group(Some(group), sure, &mut listing).await?;
                }
            }
        }
        Ok(listing)
    }

    /// Whether services can be listed.
    ///
    /// # Errors
    /// When they cannot.
    pub(crate) async fn probe(&self, groups: &Groups) -> Result<(), Error> {
        let group = match groups {
            Groups::All => None,
            Groups::Named(groups) => groups.first().map(String::as_str),
        };
        self.page(group, 1).await.map(drop)
    }

    async fn list_group(
        &self,
        group: Option<&str>,
        sure: bool,
        listing: &mut Listing,
    ) -> Result<(), Error> {
        let first = self.pass(group).await?;
        let mut whole = usize::from(first.whole);
        let wanted = if sure && first.pages > 1 { 2 } else { 1 };
        listing.names.extend(first.names);
        for _ in 1..READS {
            if whole >= wanted {
                break;
            }
            let next = self.pass(group).await?;
            whole += usize::from(next.whole);
            listing.names.extend(next.names);
        }
        if whole < wanted {
            let reason = format!(
                "the list of services of namespace {} changed each of {READS} times while it was read",
                self.namespace
            );
            listing.torn = Some(reason.into());
        }
        Ok(())
    }

    async fn pass(&self, group: Option<&str>) -> Result<Pass, Error> {
        let mut pass = Pass {
            names: HashSet::new(),
            pages: 0,
            whole: true,
        };
        let mut total = None;
        let (mut entries, mut others) = (0, 0);
        while pass.pages < PAGES {
            pass.pages += 1;
            let page = self.page(group, pass.pages).await?;
            pass.whole &= *total.get_or_insert(page.total) == page.total;
            others += page.others;
            let found = page.items.len() + page.others;
            entries += found;
            let last = found == 0 || entries >= page.total;
            pass.names.extend(page.items);
            if last {
                break;
            }
        }
        pass.whole &= total == Some(pass.names.len() + others);
        Ok(pass)
    }

    async fn page(&self, group: Option<&str>, page: u32) -> Result<Page<Name>, Error> {
        let Some(group) = group else {
            return self.http.catalog(&self.namespace, page, PAGE).await;
        };
        let names = match &self.connection {
            Some(connection) => connection.list(group, page, PAGE).await?,
            None => self.http.list(&self.namespace, group, page, PAGE).await?,
        };
        let group: Arc<str> = group.into();
        let name = |service| Name {
            group: group.clone(),
            service,
        };
        Ok(Page {
            total: names.total,
            items: names.items.into_iter().map(name).collect(),
            others: names.others,
        })
    }

    /// What a service is like now.
    ///
    /// # Errors
    /// When there is no answer. That the true health cannot be read is no error.
    pub(crate) async fn look(&self, ask: &Ask) -> Result<Answer, Error> {
        let Ask {
            name, subscribe, ..
        } = ask;
        let info = match &self.connection {
            Some(connection) if *subscribe => connection.subscribe(name).await?,
            Some(connection) => connection.query(name).await?,
            None => self.http.instances(&self.namespace, name).await?,
        };
        let (mut health, mut doubt) = (None, None);
        if info.protected {
            match self.http.true_instances(&self.namespace, name).await {
                Ok(hosts) => health = Some(hosts),
                Err(error) => doubt = Some(unknown_health(name, &error)),
            }
        }
        Ok(Answer {
            info,
            health,
            doubt,
        })
    }

    /// Ends the subscription to a service.
    ///
    /// # Errors
    /// When the server does not say that it has.
    pub(crate) async fn leave(&self, name: &Name) -> Result<(), Error> {
        match &self.connection {
            Some(connection) => connection.unsubscribe(name).await,
            None => Ok(()),
        }
    }
}

fn unknown_health(name: &Name, error: &Error) -> Arc<str> {
    let Name { group, service } = name;
    format!(
        "{group}@@{service} is at its protection threshold, so that Nacos says of all its instances that \
         they are healthy, and which of them are cannot be read: {error}; let the user read it over \
         HTTP, or set the service's protection threshold to 0"
    )
    .into()
}
