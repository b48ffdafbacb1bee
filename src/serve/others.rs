//! Other DHCP servers on the private wire. Machines would boot from whichever is quicker, so while there is another
//! one ours says nothing, and says that it does.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};

use super::{Shared, stopped};
use crate::apply::signs;
use crate::cluster::Network;
use crate::host;

/// How often the wire is asked as long as nobody answers.
const EVERY: Duration = Duration::from_secs(10 * 60);
/// The same while somebody does, and the least time between two looks.
const WHILE_HELD: Duration = Duration::from_secs(10);
/// A quarter of the time that an answer is waited for before we serve. A server that tries an address first is later
/// than that, and found soon after.
const AT_FIRST: Duration = Duration::from_millis(300);

/// How often it is looked whether the private interface leads outside.
const WAY_OUT_EVERY: Duration = Duration::from_secs(5);

/// Whether there are any, or we may be where they belong.
#[derive(Debug, Default)]
pub struct Others {
    are_there: AtomicBool,
    leads_out: AtomicBool,
    hint: Notify,
}

impl Others {
    /// Whether there are any.
    pub fn are_there(&self) -> bool {
        self.are_there.load(Ordering::Relaxed)
    }

    /// Whether ours must be silent.
    pub fn forbid(&self) -> bool {
        self.are_there() || self.leads_out.load(Ordering::Relaxed)
    }

    /// Looks whether the interface carries a default route now, and tells what is new.
    fn look_for_way_out(&self, network: &Network) {
        let interface = &network.interface;
        let fits = host::fit_to_serve(network, false);
        let leads_out = matches!(fits, Err(host::Unfit::DefaultRoute { .. }));
        match (self.leads_out.swap(leads_out, Ordering::Relaxed), leads_out) {
            (false, true) => tracing::error!(
                "{interface} carries a default route now, so it may lead to another network; our DHCP is silent until that \
                 is gone: is the cable in the right socket?"
            ),
            (true, false) => {
                tracing::info!("{interface} leads nowhere else any more: serving DHCP again");
            }

            (true, true) | (false, false) => {}
        }
    }

    /// Somebody took an offer that was not ours.
    pub fn look_now(&self) {
        self.hint.notify_one();
    }

    /// A short look, for whoever waits for it.
    pub async fn glance(&self, network: &Network) {
        self.look(network, AT_FIRST).await;
    }

    /// Asks the wire, and tells what is new.
    async fn look(&self, network: &Network, patience: Duration) {
        // What could not be asked has not changed.
        let Some(servers) = ask(network.clone(), patience).await else { return };
        let (interface, were_there) = (&network.interface, self.are_there());
        self.are_there.store(!servers.is_empty(), Ordering::Relaxed);
        if !servers.is_empty() && !were_there {
            let servers: Vec<_> = servers.iter().map(Ipv4Addr::to_string).collect();
            tracing::error!(
                "another DHCP server answers on {interface}: {}; ours is silent until that one is gone: switch it off, or \
                 take it off the private switch",
                servers.join(", ")
            );
        }
        if servers.is_empty() && !were_there {
            tracing::debug!("no other DHCP server answers on {interface}");
        }
        if servers.is_empty() && were_there {
            tracing::info!("the other DHCP server on {interface} is gone: serving DHCP again");
        }
    }
}

/// Who offers an address; `None` where that cannot be asked.
async fn ask(network: Network, patience: Duration) -> Option<Vec<Ipv4Addr>> {
    let (tell, told) = oneshot::channel();
    // A thread of its own: when it is time to go nobody waits for its end.
    std::thread::spawn(move || {
        let Some(mac) = host::running_card(&network.interface) else { return };
        // Whoever asked may have gone.
        drop(tell.send(signs::offers(&network.interface, mac, network.address, patience)));
    });
    match told.await {
        Ok(Ok(servers)) => Some(servers),
        Ok(Err(error)) => {
            tracing::warn!(%error, "cannot look for other DHCP servers");
            None
        }
        // The card is off.
        Err(_) => None,
    }
}

/// Looks for a way out until it is time to go.
pub async fn watch_way_out(network: Network, shared: Arc<Shared>) {
    let mut stop = shared.stop.subscribe();
    loop {
        tokio::select! {
            () = stopped(&mut stop) => return,
            () = tokio::time::sleep(WAY_OUT_EVERY) => shared.others.look_for_way_out(&network),
        }
    }
}

/// Looks for others until it is time to go.
pub async fn run(network: Network, shared: Arc<Shared>) {
    let mut stop = shared.stop.subscribe();
    loop {
        let others = &shared.others;
        tokio::select! {
            () = stopped(&mut stop) => return,
            () = others.look(&network, signs::PATIENCE) => {}
        }
        let pause = if others.are_there() { WHILE_HELD } else { EVERY };
        tokio::select! {
            () = stopped(&mut stop) => return,
            () = tokio::time::sleep(pause) => {}
            () = async {
                // However many hints there are.
                tokio::time::sleep(WHILE_HELD).await;
                others.hint.notified().await;
            } => {}
        }
    }
}
