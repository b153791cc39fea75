"""The tests mirror the folders: a module has a test file of its name, or a line here that says where it is tested."""

from __future__ import annotations

from shared import ROOT

ELSEWHERE = {
    "tests/benchmarks/runs/test_runs.py": (
        "benchmarks/contest_tables.py", "benchmarks/model_options.py", "benchmarks/problem.py",
        "benchmarks/runs/enumerate_plans.py", "benchmarks/runs/joint.py", "benchmarks/runs/memory.py",
        "benchmarks/runs/methods.py", "benchmarks/runs/never_worse.py", "benchmarks/runs/proposals.py",
        "benchmarks/runs/savings.py", "benchmarks/runs/search.py", "benchmarks/runs/solver.py",
        "benchmarks/runs/sparsity.py", "benchmarks/runs/transfer.py", "benchmarks/runs/trial.py",
        "benchmarks/runs/uniform.py",
    ),
    "tests/benchmarks/test_enumeration.py": ("benchmarks/contest.py", "benchmarks/known_front.py"),
    "tests/compressors/bank/test_encoding.py": ("space/layouts.py",),
    "tests/compressors/bank/test_fill.py": (
        "compressors/bank/fill_worker.py", "compressors/calibration/statistics_folder.py",
        "compressors/tensor_files/tensor_file.py",
    ),
    "tests/compressors/methods/test_cluster.py": ("compressors/numerics/scalar_codebook.py",),
    "tests/compressors/methods/test_methods.py": (
        "compressors/methods/cast.py", "compressors/rounding/nearest.py", "compressors/rounding/range_search.py",
        "space/statistics.py",
    ),
    "tests/compressors/methods/test_prune.py": (
        "compressors/pruning/magnitude.py", "compressors/pruning/pattern.py",
        "compressors/pruning/sparsegpt.py", "compressors/pruning/wanda.py",
    ),
    "tests/compressors/methods/test_prune_heads.py": ("compressors/numerics/group_removal.py",),
    "tests/compressors/methods/test_vector_quantize.py": ("compressors/numerics/vector_codebook.py",),
    "tests/compressors/model/test_kernels.py": ("compressors/model/assemble.py",),
    "tests/compressors/model/test_sequential_drops.py": (
        "compressors/model/dropped_parts.py", "compressors/model/original_inputs.py",
    ),
    "tests/compressors/original/test_find_sites.py": ("space/site.py",),
    "tests/compressors/original/test_memory_limit.py": ("search/cost/cost.py",),
    "tests/compressors/original/test_origin.py": (
        "compressors/original/weights_digest.py", "search/workbench/inputs.py",
    ),
    "tests/compressors/rounding/test_gptq.py": (
        "compressors/numerics/coordinate_descent.py", "compressors/rounding/coordinate_descent.py",
        "compressors/rounding/grid.py",
    ),
    "tests/deploy/formats/test_shards.py": (
        "deploy/formats/paredown.py", "deploy/formats/transformers.py", "deploy/header.py",
    ),
    "tests/deploy/test_load.py": (
        "deploy/engines/paredown.py", "deploy/engines/transformers.py", "deploy/verify_process.py",
    ),
    "tests/evaluators/test_quality.py": (
        "evaluators/door.py", "evaluators/metrics/kl.py", "evaluators/metrics/relative_error.py",
    ),
    "tests/interface/cli/test_commands.py": (
        "interface/__main__.py", "interface/cli/model_commands.py", "interface/cli/options.py",
        "interface/cli/output.py", "interface/cli/study_commands.py", "interface/cli/wording.py",
        "interface/evaluation.py", "interface/inspection.py", "interface/models.py", "interface/studies.py",
        "space/study_file.py",
    ),
    "tests/interface/cli/test_progress.py": ("search/outcome/progress.py", "search/trials/counts.py"),
    "tests/interface/test_dashboard_server.py": ("search/trials/database.py",),
    "tests/interface/test_faults.py": ("interface/entry.py", "interface/streams.py", "space/errors.py"),
    "tests/interface/test_transferring.py": ("search/study/transfer_trials.py",),
    "tests/search/cost/test_writes.py": (
        "compressors/tensor_files/record_names.py", "search/cost/speed.py",
    ),
    "tests/search/finalists/test_measurements.py": ("search/finalists/rebuild.py",),
    "tests/search/report/test_report.py": (
        "search/outcome/outcome.py", "search/report/pictures.py", "search/report/rendering.py",
        "search/report/fresh_texts.py", "search/report/sections.py", "search/report/verdict.py",
    ),
    "tests/search/samplers/by_level/test_nsga2.py": ("search/samplers/by_level/radial_basis.py",),
    "tests/search/sensitivity/estimators/test_estimators.py": (
        "search/sensitivity/estimators/angular.py", "search/sensitivity/estimators/autoscheme.py",
        "search/sensitivity/estimators/combined.py", "search/sensitivity/estimators/fisher.py",
        "search/sensitivity/estimators/gradient.py", "search/sensitivity/estimators/single_site.py",
        "search/sensitivity/estimators/single_site_full.py",
    ),
    "tests/search/sensitivity/test_sensitivity.py": (
        "search/sensitivity/measurement_cache.py", "search/sensitivity/measurements.py",
        "search/sensitivity/stored.py",
    ),
    "tests/search/solver/test_branch_and_bound.py": ("search/solver/core.py", "search/solver/forest.py"),
    "tests/search/solver/test_completion_bound.py": ("search/solver/partial_sums.py",),
    "tests/search/solver/test_refusal.py": ("search/study/impossible_budget.py",),
    "tests/search/solver/test_solver.py": ("search/solver/integer_program.py",),
    "tests/search/study/test_select.py": ("search/outcome/inventory_file.py",),
    "tests/search/study/test_schedule.py": (
        "search/finalists/missing.py", "search/finalists/scored.py", "search/study/limit.py",
        "search/study/prepare.py", "search/study/run.py", "search/study/session.py",
    ),
    "tests/search/surrogate/test_gaussian_process.py": ("search/surrogate/prior.py", "search/surrogate/features.py",),
    "tests/search/workbench/test_workbench.py": ("search/workbench/evaluator.py", "search/workbench/texts.py"),
    "tests/space/system/test_child.py": ("space/system/interruption.py",),
    "tests/space/test_plan.py": ("space/tensors.py",),
    "tests/test_docs.py": (
        "docs/generate/__main__.py", "docs/generate/schema.py", "docs/generate/what_runs_where.py",
        "space/targets/paredown.py", "space/targets/target.py", "space/targets/transformers.py",
    ),
    "tests/test_end_to_end.py": (
        "search/workbench/deployed.py", "search/workbench/environment.py", "search/workbench/survey.py",
    ),
    "tests/test_stale.py": ("deploy/scored.py",),
}  # fmt: skip
"""The modules that a test file covers beside the one of its name, if it has one."""

FOLDERS = ("space", "compressors", "evaluators", "search", "deploy", "interface", "benchmarks", "docs/generate")


def test_every_module_has_a_test_file_of_its_name_or_a_line_here() -> None:
    """A line names a module that exists and has no file of its own, and a test file that exists."""
    modules = {
        path.relative_to(ROOT).as_posix()
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*.py")
        if path.name != "__init__.py"
    }
    own = {name for name in modules if (ROOT / "tests" / name).with_name(f"test_{name.rpartition('/')[2]}").is_file()}
    listed = [name for names in ELSEWHERE.values() for name in names]
    assert sorted(modules - own - set(listed)) == []
    assert sorted(set(listed) - modules | set(listed) & own) == []
    assert len(listed) == len(set(listed))
    assert [test for test in ELSEWHERE if not (ROOT / test).is_file()] == []
