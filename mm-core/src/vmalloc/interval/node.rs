//! What a record holds to be in an interval tree, and how the tree reaches it.

use crate::addr::PhysRange;

/// No record.
pub(crate) const NONE: u32 = u32::MAX;

/// What a record holds to be in a tree.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Node {
    pub(super) range: PhysRange,
    /// When it was inserted, to order equal starts.
    pub(super) serial: u64,
    /// The largest end at or below this node.
    pub(super) reach: u64,
    pub(super) parent: u32,
    pub(super) left: u32,
    pub(super) right: u32,
    /// Levels from here down; 0 when in no tree.
    pub(super) height: u8,
}

impl Node {
    /// In no tree.
    pub(crate) const NEW: Node = Node {
        range: PhysRange { start: 0, end: 0 },
        serial: 0,
        reach: 0,
        parent: NONE,
        left: NONE,
        right: NONE,
        height: 0,
    };

    /// Marks a node as one in no tree; what else it says may be anything.
    ///
    /// # Safety
    /// The node may be written.
    #[inline(always)]
    pub(crate) unsafe fn unlist(node: *mut Node) {
        // SAFETY: by the caller.
        unsafe { (&raw mut (*node).height).write(0) };
    }

    /// The range it was inserted with.
    #[cfg(test)]
    pub(crate) fn range(&self) -> PhysRange {
        self.range
    }

    /// True while it is in a tree.
    pub(crate) fn is_listed(&self) -> bool {
        self.height != 0
    }
}

/// Where the nodes lie.
///
/// # Safety
/// For every id in a tree `node` returns a pointer to that id's own node, the same each time, valid for reads and
/// writes; nothing else uses the node during a call to the tree.
pub(crate) unsafe trait Nodes {
    /// The node of record `id`.
    fn node(&self, id: u32) -> *mut Node;
}

pub(super) fn get(nodes: &impl Nodes, id: u32) -> Node {
    // SAFETY: ids come from `insert`, whose caller promised what `Nodes` says for them, or from links between them.
    unsafe { nodes.node(id).read() }
}

pub(super) fn put(nodes: &impl Nodes, id: u32, node: Node) {
    // SAFETY: as in `get`.
    unsafe { nodes.node(id).write(node) }
}

pub(super) fn edit(nodes: &impl Nodes, id: u32, change: impl FnOnce(&mut Node)) {
    // SAFETY: as in `get`; `change` is one of the assignments above and reaches no other node.
    change(unsafe { &mut *nodes.node(id) })
}

pub(super) fn height(nodes: &impl Nodes, id: u32) -> u8 {
    if id == NONE { 0 } else { get(nodes, id).height }
}

pub(super) fn reach(nodes: &impl Nodes, id: u32) -> u64 {
    if id == NONE { 0 } else { get(nodes, id).reach }
}

/// Recomputes one node, and returns its children's heights.
pub(super) fn update(nodes: &impl Nodes, id: u32) -> (u8, u8) {
    let node = get(nodes, id);
    let (left, right) = (height(nodes, node.left), height(nodes, node.right));
    let reach = node.range.end.max(reach(nodes, node.left)).max(reach(nodes, node.right));
    edit(nodes, id, |node| (node.height, node.reach) = (left.max(right) + 1, reach));
    (left, right)
}

pub(super) fn leftmost(nodes: &impl Nodes, mut at: u32) -> u32 {
    while get(nodes, at).left != NONE {
        at = get(nodes, at).left;
    }
    at
}
