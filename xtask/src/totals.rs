//! Adding up results over boards and libraries.

use std::fmt;

/// How many tests ended how, and how to run the failed ones again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Totals {
    /// Tests that passed.
    pub passed: u64,
    /// Tests that failed, and things that could not be built or started at all.
    pub failed: u64,
    /// Tests marked as ignored.
    pub skipped: u64,
    /// What failed, and the command that runs just that again.
    pub reruns: Vec<Rerun>,
}

/// Something that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rerun {
    /// In words.
    pub what: String,
    /// To type.
    pub command: String,
}

impl Totals {
    /// One thing that passed.
    pub fn one() -> Totals {
        Totals { passed: 1, ..Totals::default() }
    }

    /// Counts one failure of something that is not a test.
    pub fn fail(&mut self, what: impl Into<String>, command: impl Into<String>) {
        self.failed += 1;
        self.reruns.push(Rerun { what: what.into(), command: command.into() });
    }

    /// Adds the results of another part.
    pub fn add(&mut self, other: Totals) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
        self.reruns.extend(other.reruns);
    }

    /// Lists what failed with its commands, then the closing line.
    pub fn print(&self) {
        if !self.reruns.is_empty() {
            println!("\nfailed, each with the command that runs just that again:");
            for rerun in &self.reruns {
                println!("  {}\n      {}", rerun.what, rerun.command);
            }
        }
        println!("\n{self}");
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)?;
        if self.skipped > 0 {
            write!(f, ", {} skipped", self.skipped)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closing_line_names_skipped_tests_only_when_there_are_some() {
        let mut totals = Totals { passed: 12, ..Totals::default() };
        assert_eq!(totals.to_string(), "12 passed, 0 failed");
        totals.add(Totals { passed: 1, skipped: 2, ..Totals::default() });
        totals.fail("suites of x", "cargo xtask test --board x");
        assert_eq!(totals.to_string(), "13 passed, 1 failed, 2 skipped");
        assert_eq!(totals.reruns.len(), 1);
    }
}
