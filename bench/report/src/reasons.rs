//! Why a goal is missed.

/// What stands in the way of a goal, by the figure's name: said on the page as long as the goal is missed.
///
/// How much an instruction count could fall was found by counting the instructions of the call one by one.
const REASONS: &[(&str, &str)] = &[];

/// Why the figure `id` misses its goal, if that is known.
pub fn reason(id: &str) -> Option<&'static str> {
    REASONS.iter().find(|(of, _)| *of == id).map(|(_, why)| *why)
}
