//! Whether somebody has to hear of a single frame that is given back: the tree, or who waits.
//!
//! One comparison answers both: the open word, of which the tree is told nothing, is *quiet* unless the buddy is watched.

use super::Buddy;
use crate::bits::Word;

impl Buddy {
    /// True when nobody need hear of a single frame that is given back to `word`.
    #[inline(always)]
    pub fn is_quiet(&self, word: *mut Word) -> bool {
        self.quiet_word == word
    }

    /// True while no word is quiet.
    pub fn is_watched(&self) -> bool {
        self.quiet_word.is_null()
    }

    /// From now on no word is quiet: somebody waits for frames.
    pub fn watch(&mut self) {
        self.quiet_word = core::ptr::null_mut();
    }

    /// Nobody waits any more: the open word is quiet again.
    pub fn unwatch(&mut self) {
        self.quiet_word = self.open_word;
    }

    /// Opens a word, or none; it is quiet if the one before was.
    #[inline(always)]
    pub(super) fn set_open_word(&mut self, word: *mut Word) {
        if self.quiet_word == self.open_word {
            self.quiet_word = word;
        }
        self.open_word = word;
    }
}

/// Where code is to be small no frame goes back by itself, and every free looks for who waits.
#[cfg(feature = "small")]
impl super::small::Buddy {
    /// There are no words.
    #[inline(always)]
    pub fn is_quiet(&self, _word: *mut Word) -> bool {
        true
    }

    /// As `is_quiet`.
    pub fn is_watched(&self) -> bool {
        false
    }

    /// No free asks.
    pub fn watch(&mut self) {}

    /// No free asks.
    pub fn unwatch(&mut self) {}
}
