"""The scheduler table agrees with the families that use it."""

from __future__ import annotations

import pytest

from contracts.catalogue.families import FAMILIES
from contracts.catalogue.schedulers import SCHEDULERS, mismatch, names_for


def test_every_kind_of_model_has_its_own_schedulers() -> None:
    kinds = [set(names_for(kind)) for kind in ("diffusion", "flow", "edm", "trigflow", "learned_variance")]
    assert all(kinds)
    assert sum(map(len, kinds)) == len(set().union(*kinds)) == len(SCHEDULERS)


def test_each_familys_default_scheduler_works_with_it() -> None:
    for family in FAMILIES.values():
        assert family.defaults["scheduler"] in names_for(family.kind)


ZERO_SNR = {"_class_name": "EulerDiscreteScheduler", "rescale_betas_zero_snr": True}
LEARNED = {"_class_name": "DDPMScheduler", "variance_type": "learned_range", "clip_sample": True}
EDM = {"_class_name": "EDMDPMSolverMultistepScheduler", "sigma_data": 0.5}


@pytest.mark.parametrize(
    ("settings", "suitable"),
    [
        ({}, set(SCHEDULERS)),
        (ZERO_SNR, set(names_for("diffusion")) - {"heun", "pndm"}),
        ({**ZERO_SNR, "rescale_betas_zero_snr": False}, set(names_for("diffusion"))),
        (EDM, {"edm_euler", "edm_dpmpp_2m"}),
        ({"_class_name": "SCMScheduler", "prediction_type": "trigflow"}, {"scm"}),
        (
            {"_class_name": "EulerDiscreteScheduler", "timestep_type": "continuous"},
            {"euler", "euler_karras", "euler_trailing"},
        ),
        (
            {**ZERO_SNR, "rescale_betas_zero_snr": None, "prediction_type": "sample"},
            set(names_for("diffusion")) - {"euler_a", "heun", "pndm"},
        ),
        ({"_class_name": "FlowMatchEulerDiscreteScheduler", "shift_terminal": 0.02}, {"flow_euler", "flow_unipc"}),
        ({"_class_name": "FlowMatchEulerDiscreteScheduler", "time_shift_type": "linear"}, {"flow_euler"}),
        ({"_class_name": "FlowMatchEulerDiscreteScheduler", "use_beta_sigmas": True}, {"flow_euler"}),
        ({"_class_name": "DPMSolverMultistepScheduler", "use_flow_sigmas": True}, set(names_for("flow"))),
        ({**LEARNED, "thresholding": True}, {"ddpm", "ddpm_dpmpp_2m"}),
        (LEARNED, {"ddpm"}),
        ({**LEARNED, "variance_type": "fixed_small"}, set(names_for("diffusion"))),
        ({"_class_name": "CMStochasticIterativeScheduler"}, set()),
        ({**EDM, "prediction_type": "something else"}, set()),
    ],
)
def test_a_scheduler_suits_a_checkpoint_whose_settings_it_follows(
    settings: dict[str, object], suitable: set[str]
) -> None:
    assert {row.id for row in SCHEDULERS.values() if mismatch(row, settings) is None} == suitable
