//! Which first program a machine is given: one that it did not come back from is tried again last.
//!
//! Old firmware hangs in this loader and runs in that one, and nobody can tell from outside. So what came of each is
//! remembered, by card.

use crate::machine::Loader;

use super::TimestampMs;

/// How long a loader may take until its script is asked for. iPXE's own drivers reset the link, and a switch with
/// spanning tree lets nothing pass for 50 s after that.
pub const PATIENCE_MS: u64 = 2 * 60 * 1000;
/// Whoever asks for the loader again after so long was switched off and on in between by somebody who saw it hang.
const HUNG_MS: u64 = 30 * 1000;

/// A loader that is written down so soon after its script was sent before it: many ROMs do not acknowledge its last
/// block, and that it has arrived is known when they have been silent for a while.
const LATE_MS: u64 = 15 * 1000;

/// What came of the loaders that a machine was sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ladder {
    /// Sent, and nothing came of it yet.
    sent: Option<(Loader, TimestampMs)>,
    /// When the last script was asked for.
    back_ms: Option<TimestampMs>,
    /// The last one that worked.
    proven: Option<Loader>,
    /// It did not work the last time. Once may be a plug that was pulled.
    doubted: bool,
    /// Those that did not work, the longest ago first.
    lost: Vec<Loader>,
}

impl Ladder {
    /// In which order `rungs`, the best first, are sent: what worked, what was not tried, and what did not work.
    pub fn order(&self, rungs: impl Iterator<Item = Loader>) -> Vec<Loader> {
        let age = |rung: &Loader| self.lost.iter().position(|lost| lost == rung);
        let mut order: Vec<_> = rungs.collect();
        order.sort_by_key(|rung| (self.proven != Some(*rung), age(rung)));
        order
    }

    /// The loader that was sent since `watched` and has been silent for too long at `now`.
    pub fn overdue(&self, watched: TimestampMs, now: TimestampMs) -> Option<Loader> {
        let (loader, at) = self.sent?;
        (at >= watched && now.saturating_sub(at) > PATIENCE_MS).then_some(loader)
    }

    /// The one that was sent and that nothing was heard from yet, and since when.
    pub fn awaited(&self) -> Option<(Loader, TimestampMs)> {
        self.sent
    }

    /// When a script was last asked for.
    pub fn back_ms(&self) -> Option<TimestampMs> {
        self.back_ms
    }

    /// Those that did not work, the longest ago first.
    pub fn lost(&self) -> &[Loader] {
        &self.lost
    }

    /// The last one that worked.
    pub fn proven(&self) -> Option<Loader> {
        self.proven
    }

    /// Takes note of a loader; `false` when its script has been asked for already.
    pub(super) fn sent(&mut self, loader: Loader, at: TimestampMs) -> bool {
        // A clock that was set back proves nothing.
        let is_late = |back: TimestampMs| at.checked_sub(back).is_some_and(|age| age < LATE_MS);
        if self.back_ms.is_some_and(is_late) {
            self.works(loader);
            return false;
        }
        let mut since = at;
        if let Some((before, first)) = self.sent {
            if at.saturating_sub(first) > HUNG_MS {
                self.gave_up(before);
            } else if before == loader {
                // However fast it goes round.
                since = first;
            }
        }
        self.sent = Some((loader, since));
        true
    }

    pub(super) fn came_back(&mut self, at: TimestampMs) {
        self.back_ms = Some(at);
        if let Some((loader, _)) = self.sent.take() {
            self.works(loader);
        }
    }

    fn works(&mut self, loader: Loader) {
        (self.proven, self.doubted) = (Some(loader), false);
        self.lost.retain(|lost| *lost != loader);
    }

    pub(super) fn gave_up(&mut self, loader: Loader) {
        self.sent = None;
        if self.proven == Some(loader) {
            if !self.doubted {
                self.doubted = true;
                return;
            }
            (self.proven, self.doubted) = (None, false);
        }
        self.lost.retain(|lost| *lost != loader);
        self.lost.push(loader);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Loader::{IpxePxe, Undionly, Undionlyk};

    const RUNGS: [Loader; 3] = [Undionly, IpxePxe, Undionlyk];

    fn next(ladder: &Ladder) -> Option<Loader> {
        ladder.order(RUNGS.into_iter()).first().copied()
    }

    #[test]
    fn a_machine_goes_up_the_ladder_and_begins_again_at_its_end() {
        let mut ladder = Ladder::default();
        for round in 0..2 {
            for rung in RUNGS {
                assert_eq!(next(&ladder), Some(rung), "round {round}");
                ladder.sent(rung, 100_000);
                ladder.gave_up(rung);
            }
        }
        assert_eq!(ladder.lost(), RUNGS);
        assert_eq!(ladder.order([].into_iter()), [], "a firmware that there is no loader for");
        assert_eq!(ladder.order([Loader::SnponlyX64].into_iter()), [Loader::SnponlyX64]);
    }

    #[test]
    fn what_worked_stays_until_it_fails_twice() {
        let mut ladder = Ladder::default();
        ladder.sent(Undionly, 100_000);
        ladder.gave_up(Undionly);
        ladder.sent(IpxePxe, 200_000);
        ladder.came_back(210_000);
        assert_eq!((next(&ladder), ladder.lost()), (Some(IpxePxe), &[Undionly][..]));
        // The plug was pulled.
        ladder.sent(IpxePxe, 300_000);
        ladder.gave_up(IpxePxe);
        assert_eq!(next(&ladder), Some(IpxePxe));
        // It works again: that is forgotten.
        ladder.sent(IpxePxe, 400_000);
        ladder.came_back(410_000);
        ladder.sent(IpxePxe, 500_000);
        ladder.gave_up(IpxePxe);
        assert_eq!(next(&ladder), Some(IpxePxe));
        ladder.sent(IpxePxe, 600_000);
        ladder.gave_up(IpxePxe);
        assert_eq!(next(&ladder), Some(Undionlyk), "the first one never worked");
    }

    // Spanning tree lets nothing pass for 50 s: xcat2/xcat-core#1638, crowbar/crowbar#2332.
    #[test]
    fn silence_counts_after_a_while_and_only_when_somebody_listened() {
        let mut ladder = Ladder::default();
        let sent = 100_000;
        assert!(ladder.sent(Undionly, sent));
        assert_eq!(ladder.overdue(0, sent + PATIENCE_MS), None);
        let late = sent + PATIENCE_MS + 1;
        assert_eq!(ladder.overdue(0, late), Some(Undionly));
        assert_eq!(ladder.overdue(sent + 1, late), None, "the server was down then");
        ladder.came_back(late);
        assert_eq!(ladder.overdue(0, late), None);
    }

    #[test]
    fn who_asks_again_soon_was_only_doubled_and_who_does_later_hung() {
        let mut ladder = Ladder::default();
        let sent = 100_000;
        ladder.sent(Undionly, sent);
        ladder.sent(Undionly, sent + HUNG_MS);
        assert_eq!(next(&ladder), Some(Undionly));
        ladder.sent(Undionly, sent + 1 + 2 * HUNG_MS);
        assert_eq!(next(&ladder), Some(IpxePxe));
    }

    #[test]
    fn a_machine_that_goes_round_fast_hangs_too() {
        let mut ladder = Ladder::default();
        for round in 0..3 {
            ladder.sent(Undionly, 100_000 + round * HUNG_MS / 2);
            assert_eq!(next(&ladder), Some(Undionly));
        }
        ladder.sent(Undionly, 100_001 + HUNG_MS);
        assert_eq!(next(&ladder), Some(IpxePxe));
    }

    #[test]
    fn a_clock_that_was_set_back_proves_no_loader() {
        let mut ladder = Ladder::default();
        ladder.came_back(1_000_000);
        assert!(ladder.sent(Undionly, 500_000));
        assert_eq!(ladder.overdue(0, 500_001 + PATIENCE_MS), Some(Undionly));
    }

    // dnsmasq, tftp.c: some clients never acknowledge the last block, so that it arrived is known late.
    #[test]
    fn a_loader_that_is_known_to_have_arrived_after_its_script_did_works() {
        let mut ladder = Ladder::default();
        for boot in 1..5 {
            let script = boot * 1_000_000;
            ladder.came_back(script);
            assert!(!ladder.sent(IpxePxe, script + LATE_MS - 1));
            assert_eq!(ladder.overdue(0, script + 2 * PATIENCE_MS), None);
            assert_eq!(next(&ladder), Some(IpxePxe));
        }
    }
}
