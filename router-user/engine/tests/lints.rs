//! Clippy reads the nearest configuration only, so the engine's has to repeat the workspace's.

const WORKSPACE: &str = include_str!("../../../.clippy.toml");
const ENGINE: &str = include_str!("../clippy.toml");

/// The paths that a configuration disallows, and its other settings.
fn settings(configuration: &str) -> Vec<&str> {
    let lines = configuration.lines().map(str::trim);
    let settings = lines.filter_map(|line| match line.split_once("path = \"") {
        Some((_, rest)) => rest.split_once('"').map(|(path, _)| path),
        None => line.contains(" = ").then_some(line),
    });
    settings.collect()
}

#[test]
fn what_the_workspace_disallows_the_engine_disallows_too() {
    let (workspace, engine) = (settings(WORKSPACE), settings(ENGINE));

    assert!(workspace.len() > 3, "{workspace:?}");
    for setting in workspace {
        assert!(
            engine.contains(&setting),
            "clippy.toml of the engine lacks {setting}"
        );
    }
}
