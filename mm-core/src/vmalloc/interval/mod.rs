//! Which ranges of physical addresses are mapped, and by whom: an intrusive interval tree.

mod node;
#[cfg(test)]
mod tests;

pub(crate) use node::{NONE, Node, Nodes};

use crate::addr::PhysRange;
use node::{edit, get, height, leftmost, put, reach, update};

/// A place in the order of a tree that stays good while records come and go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cursor {
    start: u64,
    serial: u64,
}

impl Cursor {
    /// Before everything.
    #[cfg(test)]
    pub(crate) const START: Cursor = Cursor::at(0);

    /// The physical or virtual address it stands at.
    pub const fn start(&self) -> u64 {
        self.start
    }

    /// Before everything that starts at `start`.
    pub const fn at(start: u64) -> Cursor {
        Cursor { start, serial: 0 }
    }
}

/// Ranges by their start, those of equal start by age; ranges may overlap and repeat.
///
/// An AVL tree over records that live elsewhere, each node knowing the largest end below it. Every operation but
/// [`check`](IntervalTree::check) takes a fixed number of steps per level, and there are at most 46 levels. All calls
/// on one tree are given the same `nodes`.
pub(crate) struct IntervalTree {
    root: u32,
    len: usize,
    next_serial: u64,
}

impl IntervalTree {
    /// One without ranges.
    pub(crate) const EMPTY: Self = IntervalTree { root: NONE, len: 0, next_serial: 0 };

    /// How many ranges there are.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Adds `range`, which is not empty, for record `id`.
    ///
    /// # Safety
    /// `id` is in no tree and its node may be written; until it is removed, `nodes` keeps the promise of [`Nodes`]
    /// for it, and this tree is called with no other `nodes`.
    pub(crate) unsafe fn insert(&mut self, nodes: &impl Nodes, id: u32, range: PhysRange) {
        let (mut parent, mut at, mut left) = (NONE, self.root, false);
        while at != NONE {
            // Equal starts go right: behind the older ones.
            left = range.start < get(nodes, at).range.start;
            (parent, at) = (at, if left { get(nodes, at).left } else { get(nodes, at).right });
        }
        let serial = self.next_serial;
        self.next_serial += 1;
        put(nodes, id, Node { range, serial, reach: range.end, parent, height: 1, ..Node::NEW });
        match (parent, left) {
            (NONE, _) => self.root = id,
            (_, true) => edit(nodes, parent, |node| node.left = id),
            (_, false) => edit(nodes, parent, |node| node.right = id),
        }
        self.len += 1;
        self.repair(nodes, parent);
    }

    /// True when there is no range.
    #[inline(always)]
    pub(crate) fn is_empty(&self) -> bool {
        self.root == NONE
    }

    /// [`insert`](Self::insert) into a tree that is empty.
    ///
    /// # Safety
    /// As for `insert`.
    #[inline(always)]
    pub(crate) unsafe fn insert_first(&mut self, nodes: &impl Nodes, id: u32, range: PhysRange) {
        let serial = self.next_serial;
        put(nodes, id, Node { range, serial, reach: range.end, height: 1, ..Node::NEW });
        (self.root, self.len, self.next_serial) = (id, 1, serial + 1);
    }

    /// [`remove`](Self::remove) of the only one.
    ///
    /// # Safety
    /// `id` is in this tree, and nothing else is.
    #[inline(always)]
    pub(crate) unsafe fn remove_last(&mut self, nodes: &impl Nodes, id: u32) {
        (self.root, self.len) = (NONE, 0);
        // SAFETY: a node in the tree.
        unsafe { Node::unlist(nodes.node(id)) };
    }

    /// Takes record `id` out.
    ///
    /// # Safety
    /// `id` is in this tree.
    pub(crate) unsafe fn remove(&mut self, nodes: &impl Nodes, id: u32) {
        let node = get(nodes, id);
        let lowest_changed = if node.left == NONE || node.right == NONE {
            let child = if node.left == NONE { node.right } else { node.left };
            self.replace(nodes, node.parent, id, child);
            node.parent
        } else {
            // Its successor, which has no left child, moves to its place.
            let next = leftmost(nodes, node.right);
            let old = get(nodes, next);
            self.replace(nodes, old.parent, next, old.right);
            let right = get(nodes, id).right;
            edit(nodes, next, |n| (n.left, n.right) = (node.left, right));
            edit(nodes, node.left, |n| n.parent = next);
            if right != NONE {
                edit(nodes, right, |n| n.parent = next);
            }
            self.replace(nodes, node.parent, id, next);
            if old.parent == id { next } else { old.parent }
        };
        // SAFETY: a node in the tree, until now.
        unsafe { Node::unlist(nodes.node(id)) };
        self.len -= 1;
        self.repair(nodes, lowest_changed);
    }

    /// Lets `parent` (or the root) lead to `new` where it led to `old`.
    fn replace(&mut self, nodes: &impl Nodes, parent: u32, old: u32, new: u32) {
        if parent == NONE {
            self.root = new;
        } else {
            edit(nodes, parent, |node| if node.left == old { node.left = new } else { node.right = new });
        }
        if new != NONE {
            edit(nodes, new, |node| node.parent = parent);
        }
    }

    /// Recomputes and rebalances everything from `at` up.
    fn repair(&mut self, nodes: &impl Nodes, mut at: u32) {
        while at != NONE {
            let (left, right) = update(nodes, at);
            if left > right + 1 {
                let child = get(nodes, at).left;
                let inner = get(nodes, child);
                if height(nodes, inner.left) < height(nodes, inner.right) {
                    self.rotate_left(nodes, child);
                }
                at = self.rotate_right(nodes, at);
            } else if right > left + 1 {
                let child = get(nodes, at).right;
                let inner = get(nodes, child);
                if height(nodes, inner.right) < height(nodes, inner.left) {
                    self.rotate_right(nodes, child);
                }
                at = self.rotate_left(nodes, at);
            }
            at = get(nodes, at).parent;
        }
    }

    /// Puts the right child in the place of `at`, and returns it.
    fn rotate_left(&mut self, nodes: &impl Nodes, at: u32) -> u32 {
        let node = get(nodes, at);
        let up = node.right;
        let moved = get(nodes, up).left;
        self.replace(nodes, node.parent, at, up);
        edit(nodes, up, |n| n.left = at);
        edit(nodes, at, |n| (n.right, n.parent) = (moved, up));
        if moved != NONE {
            edit(nodes, moved, |n| n.parent = at);
        }
        update(nodes, at);
        update(nodes, up);
        up
    }

    /// Puts the left child in the place of `at`, and returns it.
    fn rotate_right(&mut self, nodes: &impl Nodes, at: u32) -> u32 {
        let node = get(nodes, at);
        let up = node.left;
        let moved = get(nodes, up).right;
        self.replace(nodes, node.parent, at, up);
        edit(nodes, up, |n| n.right = at);
        edit(nodes, at, |n| (n.left, n.parent) = (moved, up));
        if moved != NONE {
            edit(nodes, moved, |n| n.parent = at);
        }
        update(nodes, at);
        update(nodes, up);
        up
    }

    /// The first record, in the tree's order, whose range shares a byte with `range`.
    pub(crate) fn first_overlap(&self, nodes: &impl Nodes, range: PhysRange) -> Option<u32> {
        first_overlap_below(nodes, self.root, range)
    }

    /// The first one after record `id`.
    ///
    /// # Safety
    /// `id` is in this tree.
    #[cfg(test)]
    pub(crate) unsafe fn next_overlap(&self, nodes: &impl Nodes, id: u32, range: PhysRange) -> Option<u32> {
        let mut at = id;
        loop {
            let right = get(nodes, at).right;
            if reach(nodes, right) > range.start {
                // What reaches so far either overlaps, or starts past the range as all that follows does.
                return first_overlap_below(nodes, right, range);
            }
            loop {
                let child = at;
                at = get(nodes, child).parent;
                if at == NONE {
                    return None;
                }
                if get(nodes, at).left == child {
                    break;
                }
            }
            let node = get(nodes, at);
            if node.range.start >= range.end {
                return None;
            }
            if node.range.overlaps(range) {
                return Some(at);
            }
        }
    }

    /// The oldest record whose range starts at `start` exactly; [`next`](IntervalTree::next) leads to younger ones.
    pub(crate) fn find(&self, nodes: &impl Nodes, start: u64) -> Option<u32> {
        self.at_or_after(nodes, Cursor { start, serial: 0 }).filter(|id| get(nodes, *id).range.start == start)
    }

    /// The record after record `id`.
    ///
    /// # Safety
    /// `id` is in this tree.
    pub(crate) unsafe fn next(&self, nodes: &impl Nodes, id: u32) -> Option<u32> {
        let node = get(nodes, id);
        if node.right != NONE {
            return Some(leftmost(nodes, node.right));
        }
        let (mut child, mut at) = (id, node.parent);
        while at != NONE && get(nodes, at).right == child {
            (child, at) = (at, get(nodes, at).parent);
        }
        (at != NONE).then_some(at)
    }

    /// The next record in order; the cursor moves behind it. Between two calls records may come and go.
    pub(crate) fn advance(&self, nodes: &impl Nodes, cursor: &mut Cursor) -> Option<u32> {
        let id = self.at_or_after(nodes, *cursor)?;
        let node = get(nodes, id);
        *cursor = Cursor { start: node.range.start, serial: node.serial + 1 };
        Some(id)
    }

    fn at_or_after(&self, nodes: &impl Nodes, cursor: Cursor) -> Option<u32> {
        let (mut at, mut best) = (self.root, None);
        while at != NONE {
            let node = get(nodes, at);
            if (node.range.start, node.serial) >= (cursor.start, cursor.serial) {
                best = Some(at);
                at = node.left;
            } else {
                at = node.right;
            }
        }
        best
    }

    /// Recomputes every node. Unbounded: a diagnostic.
    pub(crate) fn check(&self, nodes: &impl Nodes) -> Result<(), (&'static str, usize)> {
        let (mut seen, mut before) = (0, None);
        let mut at = if self.root == NONE { None } else { Some(leftmost(nodes, self.root)) };
        while let Some(id) = at {
            let node = get(nodes, id);
            let wrong = |what| Err((what, id as usize));
            seen += 1;
            if seen > self.len {
                return wrong("more records in the interval tree than were inserted");
            }
            if before >= Some((node.range.start, node.serial)) {
                return wrong("records of the interval tree are out of order");
            }
            before = Some((node.range.start, node.serial));
            if [node.left, node.right].iter().any(|child| *child != NONE && get(nodes, *child).parent != id)
                || (node.parent == NONE) != (self.root == id)
            {
                return wrong("a link of the interval tree leads astray");
            }
            let (left, right) = (height(nodes, node.left), height(nodes, node.right));
            if node.height != left.max(right) + 1 || left.abs_diff(right) > 1 {
                return wrong("the interval tree is out of balance");
            }
            if node.reach != node.range.end.max(reach(nodes, node.left)).max(reach(nodes, node.right)) {
                return wrong("a node of the interval tree has a wrong reach");
            }
            // SAFETY: `id` was reached through the links.
            at = unsafe { self.next(nodes, id) };
        }
        if seen == self.len { Ok(()) } else { Err(("records of the interval tree are lost", seen)) }
    }
}

fn first_overlap_below(nodes: &impl Nodes, mut at: u32, range: PhysRange) -> Option<u32> {
    while reach(nodes, at) > range.start {
        let node = get(nodes, at);
        if reach(nodes, node.left) > range.start {
            // What reaches so far either overlaps, or starts past the range as all that follows does.
            at = node.left;
        } else if node.range.overlaps(range) {
            return Some(at);
        } else if node.range.start >= range.end {
            return None;
        } else {
            at = node.right;
        }
    }
    None
}
