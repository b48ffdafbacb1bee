//! Addresses lent to machines that are not in the cluster: MAC and time in, address out.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use crate::cluster::{AddressRange, Cluster};
use crate::mac::Mac;
use crate::stage::TimestampMs;

/// How long an acknowledged address is lent. Short: a machine that becomes a node meanwhile must
/// soon ask anew.
pub const LEASE_S: u32 = 300;
/// How long an offer waits for its request.
const OFFER_MS: u64 = 60 * 1000;
/// The same in milliseconds.
pub(super) const LEASE_MS: u64 = LEASE_S as u64 * 1000;
/// How long an address rests that a client found in use by somebody else.
const QUARANTINE_MS: u64 = 10 * 60 * 1000;
/// A question to the wire that got no answer in this time got lost with whoever asked it.
const TRIAL_MS: u64 = 2 * 1000;
/// Most addresses lent or resting at one time, however wide the range is.
const LEASES_MAX: usize = 4096;

/// Who holds which address. A machine gets the same one again as long as nobody else needs it,
/// and after a restart too, because the search for a free one starts at a hash of its MAC.
#[derive(Debug, Default)]
pub struct Pool {
    leases: BTreeMap<Ipv4Addr, Lease>,
    by_mac: BTreeMap<Mac, Ipv4Addr>,
    by_expiry: BTreeSet<(TimestampMs, Ipv4Addr)>,
    resting: BTreeMap<Ipv4Addr, TimestampMs>,
}

#[derive(Debug, Clone, Copy)]
struct Lease {
    mac: Mac,
    until_ms: TimestampMs,
    sure: Sure,
}

/// Whether a lease's address may be somebody else's, who never asked us for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Sure {
    /// Nobody was asked.
    Unknown,
    /// The wire was asked then, and has not answered yet.
    Asked(TimestampMs),
    /// Nobody answers there.
    Free,
    /// The client itself said that it takes it, in this term or one that still runs.
    Taken,
}

/// Whether an address may be offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trial {
    /// It may.
    Over,
    /// The wire is being asked.
    Running,
    /// The wire is to be asked first.
    Due,
}

/// How sure a lease is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// Until the client takes or forgets the offer.
    Offer,
    /// For [`LEASE_S`].
    Lease,
}

impl Pool {
    /// Finds or keeps the address of `mac` and holds it from `now` on; `None` when all are taken.
    pub fn take(
        &mut self,
        cluster: &Cluster,
        mac: Mac,
        hold: Hold,
        now: TimestampMs,
    ) -> Option<Ipv4Addr> {
        if let Some(ip) = self.by_mac.get(&mac).copied() {
            if self.is_lendable(cluster, ip, now) {
                self.hold(ip, mac, hold, now);
                return Some(ip);
            }
            self.forget(mac);
        }
        let ip = self.unused(cluster, mac, now).or_else(|| self.expired(cluster, now))?;
        self.hold(ip, mac, hold, now);
        Some(ip)
    }

    /// Holds `ip`, which the client names, if it is the client's already or free: a lease of
    /// before a restart is honoured.
    pub fn claim(
        &mut self,
        cluster: &Cluster,
        mac: Mac,
        ip: Ipv4Addr,
        now: TimestampMs,
    ) -> Claimed {
        let held = self.leases.get(&ip).copied();
        let is_lent = held.is_some_and(|lease| lease.mac != mac && is_running(lease.until_ms, now));
        if is_lent || cluster.node_by_ip(ip).is_some() || ip == cluster.network().address {
            return Claimed::SomebodyElses;
        }
        let has_another = self.by_mac.get(&mac).is_some_and(|own| *own != ip);
        let is_full = held.is_none() && self.len() >= capacity(cluster.network().discovery);
        if has_another || is_full || !self.is_lendable(cluster, ip, now) {
            return Claimed::NotLent;
        }
        self.hold(ip, mac, Hold::Lease, now);
        Claimed::Granted
    }

    /// The machine that was lent `ip`, also when the lease is over and nobody else took it.
    pub fn mac_of(&self, ip: Ipv4Addr) -> Option<Mac> {
        self.leases.get(&ip).map(|lease| lease.mac)
    }

    /// The address held for `mac`.
    pub fn ip_of(&self, mac: Mac) -> Option<Ipv4Addr> {
        self.by_mac.get(&mac).copied()
    }

    /// Frees what `mac` holds.
    pub fn forget(&mut self, mac: Mac) {
        if let Some(ip) = self.by_mac.remove(&mac)
            && let Some(lease) = self.leases.remove(&ip)
        {
            self.by_expiry.remove(&(lease.until_ms, ip));
        }
    }

    /// Takes back what `mac` was offered and does not want. What it was lent it may go on using: the other server
    /// may never confirm its offer.
    pub fn withdraw(&mut self, mac: Mac, now: TimestampMs) {
        let lease = self.by_mac.get(&mac).and_then(|ip| self.leases.get(ip));
        if lease.is_some_and(|it| it.sure != Sure::Taken || !is_running(it.until_ms, now)) {
            self.forget(mac);
        }
    }

    /// Whether `ip`, which is held for a client, may be offered to it. [`Trial::Due`] is said once: whoever hears it
    /// asks the wire and tells [`Self::tried`].
    pub fn trial(&mut self, ip: Ipv4Addr, now: TimestampMs) -> Trial {
        let Some(lease) = self.leases.get_mut(&ip) else { return Trial::Over };
        match lease.sure {
            Sure::Free | Sure::Taken => Trial::Over,
            Sure::Asked(at) if now.abs_diff(at) < TRIAL_MS => Trial::Running,
            Sure::Unknown | Sure::Asked(_) => {
                lease.sure = Sure::Asked(now);
                Trial::Due
            }
        }
    }

    /// Takes note that nobody else answers at `ip`.
    pub fn tried(&mut self, ip: Ipv4Addr) {
        if let Some(lease) = self.leases.get_mut(&ip) {
            lease.sure = lease.sure.max(Sure::Free);
        }
    }

    /// Keeps `ip` out of use for ten minutes: somebody else is there.
    pub fn rest(&mut self, mac: Mac, ip: Ipv4Addr, now: TimestampMs) {
        if self.by_mac.get(&mac) == Some(&ip) {
            self.forget(mac);
        }
        self.resting.retain(|_, until| until_in_reach(*until, now));
        if self.resting.len() < LEASES_MAX {
            self.resting.insert(ip, now + QUARANTINE_MS);
        }
    }

    /// Whether `ip` rests because it is used by somebody else.
    pub fn is_resting(&self, ip: Ipv4Addr, now: TimestampMs) -> bool {
        self.resting.get(&ip).is_some_and(|until| until_in_reach(*until, now))
    }

    fn len(&self) -> usize {
        self.leases.len()
    }

    fn hold(&mut self, ip: Ipv4Addr, mac: Mac, hold: Hold, now: TimestampMs) {
        let fresh = now + if hold == Hold::Lease { LEASE_MS } else { OFFER_MS };
        let sure = if hold == Hold::Lease { Sure::Taken } else { Sure::Unknown };
        let lease = match self.leases.get(&ip) {
            // An offer never shortens a lease: its client may go on using it.
            Some(lease) if lease.mac == mac && is_running(lease.until_ms, now) => {
                Lease { mac, until_ms: fresh.max(lease.until_ms), sure: sure.max(lease.sure) }
            }
            Some(_) | None => Lease { mac, until_ms: fresh, sure },
        };
        let until_ms = lease.until_ms;
        self.forget(mac);
        if let Some(old) = self.leases.insert(ip, lease) {
            self.by_mac.remove(&old.mac);
            self.by_expiry.remove(&(old.until_ms, ip));
        }
        self.by_mac.insert(mac, ip);
        self.by_expiry.insert((until_ms, ip));
    }

    /// Never lent before, or forgotten since. Probing ends: fewer addresses are taken than tried.
    fn unused(&self, cluster: &Cluster, mac: Mac, now: TimestampMs) -> Option<Ipv4Addr> {
        let range = cluster.network().discovery;
        if self.len() >= capacity(range) {
            return None;
        }
        let size = size(range);
        let start = hash(mac) % size;
        let tries = size.min((LEASES_MAX * 4) as u64);
        (0..tries)
            .filter_map(|step| nth(range, (start + step) % size))
            .find(|ip| !self.leases.contains_key(ip) && self.is_lendable(cluster, *ip, now))
    }

    /// The one whose lease ended first.
    fn expired(&self, cluster: &Cluster, now: TimestampMs) -> Option<Ipv4Addr> {
        self.by_expiry
            .iter()
            // Not the first ones only: where the clock was set back, those that were lent before are the last.
            .filter(|(until_ms, _)| !is_running(*until_ms, now))
            .map(|(_, ip)| *ip)
            .find(|ip| self.is_lendable(cluster, *ip, now))
    }

    fn is_lendable(&self, cluster: &Cluster, ip: Ipv4Addr, now: TimestampMs) -> bool {
        let network = cluster.network();
        network.discovery.contains(ip)
            && ip != network.address
            && cluster.node_by_ip(ip).is_none()
            && !self.is_resting(ip, now)
    }
}

/// What became of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claimed {
    /// The client has it now.
    Granted,
    /// It is a node's, the master's, or lent to another machine.
    SomebodyElses,
    /// It is nobody's, and not for us to lend now.
    NotLent,
}

/// A clock that was set back must not make a lease run for ages.
fn is_running(until_ms: TimestampMs, now: TimestampMs) -> bool {
    (now + 1..=now + LEASE_MS).contains(&until_ms)
}

fn until_in_reach(until_ms: TimestampMs, now: TimestampMs) -> bool {
    (now + 1..=now + QUARANTINE_MS).contains(&until_ms)
}

fn capacity(range: AddressRange) -> usize {
    usize::try_from(size(range)).unwrap_or(LEASES_MAX).min(LEASES_MAX)
}

fn size(range: AddressRange) -> u64 {
    u64::from(u32::from(range.last).saturating_sub(u32::from(range.first))) + 1
}

fn nth(range: AddressRange, index: u64) -> Option<Ipv4Addr> {
    let offset = u32::try_from(index).ok()?;
    u32::from(range.first).checked_add(offset).map(Ipv4Addr::from)
}

/// FNV-1a: spreads neighbouring MACs, and is the same in every build.
fn hash(mac: Mac) -> u64 {
    mac.octets().iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests;
