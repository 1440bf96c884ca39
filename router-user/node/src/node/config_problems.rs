//! What is wrong with a configuration, as the control socket answers it.

use crate::config::{ConfigError, Problem};
use crate::control::{ConfigProblem, ReloadProblems};
use stream_router_engine::causes::with_sources;

/// Returns everything that is wrong.
pub(super) fn reload_problems(wrong: &ConfigError) -> ReloadProblems {
    ReloadProblems {
        error: with_sources(wrong),
        problems: wrong.problems().iter().map(problem).collect(),
    }
}

fn problem(problem: &Problem) -> ConfigProblem {
    ConfigProblem {
        file: problem.file().display().to_string(),
        line: problem.line(),
        field: problem.field().to_owned(),
        wrong: problem.wrong().to_owned(),
        allowed: problem.allowed().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;

    #[test]
    fn every_problem_of_a_wrong_file_is_answered_with_its_place() {
        let text = "[device]\nname = \"a b\"\naddresses = [\"10.42.0.1/24\"]\nmtu = 1\n";
        let wrong = Config::parse(text, Path::new("sr.toml")).unwrap_err();

        let problems = reload_problems(&wrong).problems;

        let places: Vec<_> = problems
            .iter()
            .map(|problem| (problem.file.as_str(), problem.line, problem.field.as_str()))
            .collect();
        assert_eq!(
            places,
            [("sr.toml", 2, "device.name"), ("sr.toml", 4, "device.mtu")]
        );
        assert!(
            problems
                .iter()
                .all(|problem| !problem.wrong.is_empty() && !problem.allowed.is_empty())
        );
    }
}
