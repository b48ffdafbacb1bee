//! How many connections there may be: in all, and of one machine, so that no machine takes the
//! places of all others.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};

/// The places of a service.
#[derive(Debug)]
pub struct Room {
    in_all: usize,
    each: usize,
    taken: Mutex<BTreeMap<Ipv4Addr, usize>>,
}

/// A place that is taken; dropping it frees it.
#[derive(Debug)]
pub struct Place {
    room: Arc<Room>,
    peer: Ipv4Addr,
}

impl Room {
    /// Room for `in_all` connections, `each` of them from one address.
    pub fn new(in_all: usize, each: usize) -> Arc<Self> {
        Arc::new(Self { in_all, each, taken: Mutex::default() })
    }

    /// Takes a place for a connection from `peer`, when there is one.
    pub fn take(self: &Arc<Self>, peer: Ipv4Addr) -> Option<Place> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let of_peer = taken.get(&peer).copied().unwrap_or(0);
        if of_peer >= self.each || taken.values().sum::<usize>() >= self.in_all {
            return None;
        }
        taken.insert(peer, of_peer + 1);
        Some(Place { room: Arc::clone(self), peer })
    }
}

impl Room {
    /// Whether no more than so many places are taken.
    pub fn holds_up_to(&self, few: usize) -> bool {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.values().sum::<usize>() <= few
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.room.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let left = taken.get(&self.peer).copied().unwrap_or(0).saturating_sub(1);
        if left == 0 {
            taken.remove(&self.peer);
        } else {
            taken.insert(self.peer, left);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_machine_cannot_take_the_places_of_all() {
        let room = Room::new(4, 3);
        let [a, b, c] = [1, 2, 3].map(|last| Ipv4Addr::new(192, 168, 10, last));
        let mut places: Vec<_> = (0..3).map(|_| room.take(a).expect("place")).collect();
        assert!(room.take(a).is_none(), "its share is used up");
        let other = room.take(b).expect("another's");
        assert!(room.take(c).is_none(), "the room is full");
        assert!(room.holds_up_to(4) && !room.holds_up_to(3));
        places.pop();
        assert!(room.take(c).is_some());
        drop((places, other));
        assert!(room.taken.lock().expect("lock").is_empty());
    }
}
