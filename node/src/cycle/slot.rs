//! A place for something shared that may not be there yet.

use std::cell::Cell;
use std::fmt;
use std::rc::Rc;

/// As a `RefCell<Option<Rc<T>>>`, in half the room: there is one in each of many entries.
pub(super) struct Slot<T>(Cell<Option<Rc<T>>>);

impl<T> Slot<T> {
    pub(super) fn get(&self) -> Option<Rc<T>> {
        let value = self.0.take();
        self.0.set(value.clone());
        value
    }

    pub(super) fn set(&self, value: Rc<T>) {
        self.0.set(Some(value));
    }

    pub(super) fn take(&self) -> Option<Rc<T>> {
        self.0.take()
    }
}

impl<T> From<Option<Rc<T>>> for Slot<T> {
    fn from(value: Option<Rc<T>>) -> Self {
        Self(Cell::new(value))
    }
}

impl<T> Default for Slot<T> {
    fn default() -> Self {
        None.into()
    }
}

impl<T: fmt::Debug> fmt::Debug for Slot<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}
