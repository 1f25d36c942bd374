"""Every way to place a model's components that an operator's policy allows. Knows no bytes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

from contracts.inventory import Inventory, Role
from contracts.plans import Home, Policy


@dataclass(frozen=True)
class Way:
    """A home for each role, and how the VAE and the denoiser work."""

    text_encoder: Home
    t5: Home
    denoiser: Home
    vae: Home
    tiled: bool
    fp8: bool

    def home(self, role: Role) -> Home:
        """Where components of this role live; ControlNets go with the denoiser, adapters stay with the device."""
        homes = {Role.TEXT_ENCODER: self.text_encoder, Role.T5: self.t5, Role.VAE: self.vae}
        return Home.DEVICE if role is Role.ADAPTER else homes.get(role, self.denoiser)


def ways(inventory: Inventory, policy: Policy) -> Iterator[Way]:
    """All combinations that the policy allows; without a T5 its homes count once."""
    has_t5 = any(component.role is Role.T5 for component in inventory.components)
    stay_or_visit = (Home.DEVICE, Home.VISIT)
    choices = product(
        stay_or_visit,
        _t5_homes(inventory, policy) if has_t5 else (Home.DEVICE,),
        (*stay_or_visit, Home.STREAMED),
        stay_or_visit,
        (False, True),
        (False, True) if policy.allow_fp8 else (False,),
    )
    for choice in choices:
        yield Way(*choice)


def _t5_homes(inventory: Inventory, policy: Policy) -> tuple[Home, ...]:
    if policy.t5 == "off" and inventory.t5_optional:
        return (Home.ABSENT,)
    last = (Home.ABSENT,) if policy.allow_drop_t5 and inventory.t5_optional else ()
    every = (Home.DEVICE, Home.VISIT, Home.STREAMED, Home.CPU)
    allowed = {"gpu": (Home.DEVICE,), "visit": (Home.VISIT, Home.STREAMED), "cpu": (Home.CPU,)}
    return (*allowed.get(policy.t5, every), *last)
