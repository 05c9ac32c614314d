//! What somebody may have meant who wrote something else.

/// The candidate that is nearest to `wrong`, if one is near: up to one slip in three letters, two at most.
pub fn nearest<'a>(wrong: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = (wrong.chars().count() / 3).clamp(1, 2);
    candidates
        .into_iter()
        .filter(|candidate| *candidate != wrong && !candidate.is_empty())
        .map(|candidate| (strsim::damerau_levenshtein(wrong, candidate), candidate))
        .filter(|(slips, candidate)| *slips <= allowed && *slips < candidate.chars().count())
        .min_by_key(|(slips, _)| *slips)
        .map(|(_, candidate)| candidate)
}

/// `; did you mean 'x'?`, or nothing.
pub fn suggestion<'a>(wrong: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    nearest(wrong, candidates).map_or(String::new(), |found| format!("; did you mean '{found}'?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_found_and_strangers_are_not() {
        let keys = ["memory", "maxmem", "vcpus", "name", "cap"];
        for (wrong, right) in [
            ("memroy", Some("memory")),
            ("memor", Some("memory")),
            ("mem0ry", Some("memory")),
            ("vcpu", Some("vcpus")),
            ("nmae", Some("name")),
            ("cat", Some("cap")),
            ("colour", None),
            ("x", None),
            ("memory", None),
        ] {
            assert_eq!(nearest(wrong, keys), right, "{wrong}");
        }
        assert_eq!(suggestion("nmae", keys), "; did you mean 'name'?");
        assert_eq!(suggestion("zzz", keys), "");
    }
}
