//! Where each user is connected. Touched at login, at the end of a connection and by operators;
//! never by a Grab.

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use foldhash::fast::RandomState;
use hongbao_proto::UserId;

/// A place in a SET's slab. The generation tells a connection from its successor in the same slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConnectionKey {
    /// Index in the slab.
    pub slot: u32,
    /// Unique among the connections that this SET has had, modulo 2^32.
    pub generation: u32,
}

/// A connection, as named from outside its SET.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionAddress {
    /// Index of the SET.
    pub set: u32,
    pub key: ConnectionKey,
}

/// All logged-in users of the node.
#[derive(Debug, Default)]
pub struct Directory {
    users: DashMap<UserId, ConnectionAddress, RandomState>,
}

impl Directory {
    /// Records `user` at `address`; returns where it was before.
    pub fn enter(&self, user: UserId, address: ConnectionAddress) -> Option<ConnectionAddress> {
        self.users.insert(user, address)
    }

    /// Forgets `user`, unless it has moved on to another address.
    pub fn leave(&self, user: UserId, address: ConnectionAddress) {
        if let Entry::Occupied(entry) = self.users.entry(user)
            && *entry.get() == address
        {
            entry.remove();
        }
    }

    /// Where `user` is.
    pub fn find(&self, user: UserId) -> Option<ConnectionAddress> {
        self.users.get(&user).map(|entry| *entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaving_an_old_address_does_not_forget_the_new_one() {
        let (directory, user) = (Directory::default(), UserId::new(1).unwrap());
        let at = |generation| ConnectionAddress { set: 0, key: ConnectionKey { slot: 0, generation } };
        assert_eq!(directory.enter(user, at(1)), None);
        assert_eq!(directory.enter(user, at(2)), Some(at(1)));
        directory.leave(user, at(1));
        assert_eq!(directory.find(user), Some(at(2)));
        directory.leave(user, at(2));
        assert_eq!(directory.find(user), None);
    }
}
