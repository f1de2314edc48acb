//! Namespaces by socket: an array, as every train asks it.

use super::namespace::Namespace;
use crate::seam::SocketId;

/// The namespaces of a transfer.
#[derive(Debug, Default)]
pub(super) struct Spaces(Vec<Option<Box<Namespace>>>);

impl Spaces {
    pub(super) fn get(&self, socket: SocketId) -> Option<&Namespace> {
        self.0.get(usize::from(socket.0))?.as_deref()
    }

    pub(super) fn get_mut(&mut self, socket: SocketId) -> Option<&mut Namespace> {
        self.0.get_mut(usize::from(socket.0))?.as_deref_mut()
    }

    pub(super) fn insert(&mut self, socket: SocketId, space: Namespace) {
        let at = usize::from(socket.0);
        if self.0.len() <= at {
            self.0.resize_with(at + 1, || None);
        }
        self.0[at] = Some(Box::new(space));
    }

    pub(super) fn remove(&mut self, socket: SocketId) -> Option<Namespace> {
        self.0.get_mut(usize::from(socket.0))?.take().map(|space| *space)
    }

    /// All, by socket.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Namespace> {
        self.0.iter().flatten().map(|space| &**space)
    }
}
