//! Which unknown machines are written down, and how often: a request and the time in, perhaps an
//! event out. A flood of invented MACs must fill neither memory nor journal.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use super::request::Request;
use crate::mac::Mac;
use crate::stage::{Event, State, TimestampMs};

/// How often one machine is written down at most.
pub(super) const EVERY_MS: u64 = 10 * 60 * 1000;
/// All machines together: a large room at once, and then one in ten seconds. What is missed is caught at a later packet.
const COST_MS: u64 = 10_000;
const CREDIT_MAX_MS: u64 = 1000 * COST_MS;

/// Who was written down in the last ten minutes: at most what the credit allows in that time.
#[derive(Debug, Default)]
pub(super) struct Sightings {
    recent: BTreeMap<Mac, (TimestampMs, Ipv4Addr)>,
    credit_ms: u64,
    counted_ms: Option<TimestampMs>,
}

impl Sightings {
    /// The event to write down, when `request` comes from a boot program and its turn has come. Another address is
    /// news: after a restart it is only known from there.
    pub(super) fn saw(
        &mut self,
        state: &State,
        request: &Request,
        ip: Ipv4Addr,
        now: TimestampMs,
    ) -> Option<Event> {
        let arch = request.arch()?;
        let written = state.sighting(request.mac).map(|seen| (seen.last_ms, seen.ip));
        let noted = self.recent.get(&request.mac).copied();
        let is_recent = |at: TimestampMs| now.abs_diff(at) < EVERY_MS;
        // What we noted is newer than what we read in the journal.
        if noted.or(written).is_some_and(|(at, known)| is_recent(at) && known == ip) {
            return None;
        }
        if !self.spend(now) {
            return None;
        }
        self.recent.retain(|_, (at, _)| is_recent(*at));
        self.recent.insert(request.mac, (now, ip));
        Some(Event::Seen { arch, ip })
    }

    fn spend(&mut self, now: TimestampMs) -> bool {
        // A clock that was set back earns the full credit, like a fresh start.
        let earned = self.counted_ms.and_then(|at| now.checked_sub(at)).unwrap_or(CREDIT_MAX_MS);
        self.credit_ms = self.credit_ms.saturating_add(earned).min(CREDIT_MAX_MS);
        self.counted_ms = Some(now);
        let Some(left) = self.credit_ms.checked_sub(COST_MS) else { return false };
        self.credit_ms = left;
        true
    }
}
