"""What contributors are told, and what runs for them, exists: make targets, scripts, pinned versions, files."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

yaml = pytest.importorskip("yaml", reason="PyYAML is not installed; requirements-dev.txt has it")

ROOT = Path(__file__).resolve().parent.parent
TARGETS = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
PINNED = dict(re.findall(r"^([\w-]+)==([\d.]+)", (ROOT / "requirements-dev.txt").read_text(), re.MULTILINE))
SETUP = (ROOT / "setup.py").read_text()
WORKFLOW = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
HOOKS = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
#: the package of a hook's program
PACKAGES = {"pre_commit_hooks": "pre-commit-hooks", "clang-format": "clang-format", "ruff": "ruff", "mypy": "mypy"}


def commands() -> list[str]:
    """Everything that the workflow's steps run."""
    return [step["run"] for job in WORKFLOW["jobs"].values() for step in job["steps"] if "run" in step]


def test_steps_of_the_workflow_are_make_targets_and_scripts_that_exist():
    targets = {
        target for command in commands() for target in re.findall(r"\bmake (?:\w+=\S+ )*(?!\w+=)(\S+)", bare(command))
    }
    scripts = [command for command in commands() if "make" not in command]
    assert targets == {"lint", "test", "wheel"}
    assert targets <= TARGETS
    assert set(scripts) == {".ci/install-nvcc", ".ci/run"}
    for script in scripts:
        assert os.access(ROOT / script, os.X_OK), script


def bare(command: str) -> str:
    """The command without the spaces in its expressions."""
    return re.sub(r"\$\{\{.*?\}\}", "EXPRESSION", command)


def test_the_workflow_runs_from_the_floors_to_the_newest():
    matrix = WORKFLOW["jobs"]["quick"]["strategy"]["matrix"]
    oldest = re.search(r'python_requires=">=([\d.]+)"', SETUP)[1], re.search(r'"torch>=([\d.]+)"', SETUP)[1]
    assert (matrix["python"][0], matrix["torch"][0]) == (oldest[0], f"{oldest[1]}.0")
    assert f"TORCH={matrix['torch'][-1]} " in (ROOT / "docs" / "design.md").read_text()
    assert matrix["python"][-1] == WORKFLOW["jobs"]["wheels"]["strategy"]["matrix"]["python"][-1]


def test_jobs_wait_for_jobs_that_exist_and_actions_have_versions():
    for job in WORKFLOW["jobs"].values():
        assert set(job.get("needs", ())) <= set(WORKFLOW["jobs"])
        for step in job["steps"]:
            assert "run" in step or re.fullmatch(r"actions/[\w-]+@v\d+", step["uses"])


def test_the_wheels_follow_everything_else():
    assert set(WORKFLOW["jobs"]["wheels"]["needs"]) == set(WORKFLOW["jobs"]) - {"wheels"}


@pytest.mark.parametrize("hook", HOOKS, ids=lambda hook: hook["id"])
def test_hooks_are_programs_of_pinned_packages(hook):
    program = re.match(r"\.venv/bin/(?:python -m )?([\w-]+)", hook["entry"])[1]
    assert PACKAGES[program] in PINNED
    assert hook["language"] == "system"
    for folder in re.findall(r"[a-z_]+(?:/[a-z_]+)*(?=\)?/)", hook.get("files", "") + hook.get("exclude", "")):
        assert (ROOT / folder).is_dir(), folder


def test_pinned_versions_are_those_that_imgops_takes():
    extras = re.search(r'"dev": \[(.*?)\]', SETUP, re.DOTALL)[1]
    for name, floor in re.findall(r'"([\w-]+)(?:>=([\d.]+))?"', extras):
        pinned, least = (tuple(map(int, v.split("."))) for v in (PINNED[name], floor or "0"))
        assert pinned >= least, name


@pytest.mark.parametrize(
    "form", sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml")), ids=lambda form: form.name
)
def test_issue_forms_ask_for_something(form):
    content = yaml.safe_load(form.read_text())
    if form.name != "config.yml":
        assert {"name", "description", "body"} <= set(content)
        assert len({part["id"] for part in content["body"]}) == len(content["body"])
