//! What goes wrong for some time, while the sequence goes on.

use std::{future::Future, sync::atomic::Ordering, time::Duration};

use anyhow::Result;
use diolkos_testkit::{Fault, HttpFault, On, Reply};
use tokio::{task::JoinSet, time::sleep};

use crate::{
    play::Tally,
    sequence::{Asked, Trouble},
};

/// How long a lie is kept ready, to be told once. All that the guard measures is longer.
pub(crate) const LIE: Duration = Duration::from_millis(400);

/// What goes on at this time. Each ends with how often somebody met it.
#[derive(Default)]
pub(crate) struct Troubles {
    faults: JoinSet<Result<usize>>,
    lies: JoinSet<Result<usize>>,
}

impl Troubles {
    /// Something breaks, and is whole again when the future ends.
    pub(crate) fn fault(&mut self, fault: impl Future<Output = Result<usize>> + Send + 'static) {
        self.faults.spawn(fault);
    }

    /// Something untrue is said until the future ends.
    pub(crate) fn lie(&mut self, lie: impl Future<Output = Result<usize>> + Send + 'static) {
        self.lies.spawn(lie);
    }

    /// Breaks what goes through a proxy for HTTP, for some time.
    pub(crate) fn http(&mut self, proxy: &HttpFault, trouble: &Trouble, on: On, time: Duration) {
        let fault = match trouble {
            Trouble::Cut => return proxy.cut(),
            Trouble::Hang => Fault::Hang,
            Trouble::Slow(time) => Fault::Delay(*time),
            Trouble::Status(code) => Fault::Reply(refusal(*code)),
            Trouble::Half(bytes) => Fault::Cut((*bytes).into()),
            Trouble::Refuse | Trouble::Reset => Fault::Reset,
            Trouble::LoseReply => Fault::LoseReply,
        };
        self.rule(proxy, on, fault, time);
    }

    /// A rule of a proxy for HTTP, for some time.
    pub(crate) fn rule(&mut self, proxy: &HttpFault, on: On, fault: Fault, time: Duration) {
        let rule = proxy.rule(on, fault);
        self.fault(async move {
            sleep(time).await;
            rule.end();
            Ok(rule.hits())
        });
    }

    /// Waits until all is over.
    pub(crate) async fn over(&mut self, tally: &Tally) -> Result<()> {
        while let Some(hits) = self.faults.join_next().await {
            tally.broken.fetch_add(hits??, Ordering::SeqCst);
        }
        self.lies_over(tally).await
    }

    /// Waits until only the truth is said.
    pub(crate) async fn lies_over(&mut self, tally: &Tally) -> Result<()> {
        while let Some(hits) = self.lies.join_next().await {
            tally.lies.fetch_add(hits??, Ordering::SeqCst);
        }
        Ok(())
    }
}

/// Which requests to the API server something happens to.
pub(crate) fn api_requests(trouble: &Trouble, asked: Asked) -> On {
    match (trouble, asked) {
        // The reply to a watch has no end to wait for before it is lost.
        (Trouble::LoseReply, _) | (_, Asked::First) => On::writes(),
        (_, Asked::All) => On::every(),
        (_, Asked::Second) => On::reads(),
        (_, Asked::Third) => On::every().path("/serviceentries"),
    }
}

/// An answer that both Consul and an API server give, in the latter's form.
fn refusal(code: u16) -> Reply {
    let reason = match code {
        403 => "Forbidden",
        409 => "Conflict",
        429 => "TooManyRequests",
        503 => "ServiceUnavailable",
        _ => "InternalError",
    };
    let reply = Reply::kubernetes(code, reason);
    if code == 429 {
        return reply.header("retry-after", "1");
    }
    reply
}
