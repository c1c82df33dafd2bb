"""The models' sections of the configuration, and the popularity that their scores are blended with."""

from __future__ import annotations

from dataclasses import dataclass

from sparkrec.models.als.settings import AlsConfig
from sparkrec.models.content.settings import ContentConfig
from sparkrec.models.content2vec.settings import Content2VecConfig
from sparkrec.models.copurchase_counts.settings import CopurchaseCountsConfig
from sparkrec.models.gru.settings import GruConfig
from sparkrec.models.hybrid.settings import HybridConfig
from sparkrec.models.implicit_mf.settings import ImplicitMfConfig
from sparkrec.models.neighbours.settings import ItemNeighboursConfig, UserNeighboursConfig
from sparkrec.models.prod2vec.settings import MetaProd2VecConfig, Prod2VecConfig
from sparkrec.models.ratings.settings import RatingsConfig
from sparkrec.models.rules.settings import RulesConfig
from sparkrec.models.session_hybrid.settings import SessionHybridConfig
from sparkrec.models.session_neighbours.settings import SessionNeighboursConfig
from sparkrec.models.two_tower.settings import TwoTowerConfig
from sparkrec.settings.setting import NOT_NEGATIVE, POSITIVE, STRENGTH, section, setting


@dataclass(frozen=True)
class PriorConfig:
    """Recent popularity that the scores of the user models are blended with; a strength of 0 leaves them alone.

    p is the number of users that took the item in the last ``days``.
    """

    days: float = setting(14.0, "days; window of p", POSITIVE)
    als: float = setting(
        0.0,
        "strength: score * (p + 1) ** als; 0: none. sparkrec search finds it on a validation night",
        STRENGTH,
        tried=(0.0, 0.5),
    )
    als_added: float = setting(
        0.2, "strength: score + als_added * ln(p + 1), after the former", NOT_NEGATIVE, tried=(0.0, 0.1, 0.2, 0.4, 0.8)
    )
    two_tower: float = setting(0.4, "strength: score + two_tower * ln(p + 1)", NOT_NEGATIVE, tried=(0.0, 0.2, 0.4, 0.8))
    item_neighbours: float = setting(
        1.0, "strength: score * (p + 1) ** item_neighbours", STRENGTH, tried=(0.0, 0.5, 1.0, 2.0)
    )
    implicit_mf: float = setting(
        1.5, "strength: score + implicit_mf * ln(p + 1)", NOT_NEGATIVE, tried=(0.0, 0.5, 1.5, 3.0)
    )
    ratings: float = setting(
        2.5,
        "strength: predicted rating + ratings * s * ln(p + 1), s: deviation of what biases leave of a rating",
        NOT_NEGATIVE,
        tried=(0.0, 1.0, 2.5, 5.0),
    )


@dataclass(frozen=True)
class ModelSections:
    """A section for each model of this package."""

    als: AlsConfig = section(AlsConfig)
    gru: GruConfig = section(GruConfig)
    two_tower: TwoTowerConfig = section(TwoTowerConfig)
    prod2vec: Prod2VecConfig = section(Prod2VecConfig)
    meta_prod2vec: MetaProd2VecConfig = section(MetaProd2VecConfig, "as prod2vec, and")
    content2vec: Content2VecConfig = section(Content2VecConfig)
    copurchase_counts: CopurchaseCountsConfig = section(CopurchaseCountsConfig)
    rules: RulesConfig = section(RulesConfig)
    item_neighbours: ItemNeighboursConfig = section(ItemNeighboursConfig)
    user_neighbours: UserNeighboursConfig = section(UserNeighboursConfig)
    session_neighbours: SessionNeighboursConfig = section(SessionNeighboursConfig)
    session_hybrid: SessionHybridConfig = section(SessionHybridConfig, "needs the models gru and session_neighbours")
    content: ContentConfig = section(ContentConfig)
    implicit_mf: ImplicitMfConfig = section(ImplicitMfConfig)
    ratings: RatingsConfig = section(RatingsConfig)
    hybrid: HybridConfig = section(HybridConfig)
    prior: PriorConfig = section(
        PriorConfig,
        "recent popularity that the scores of the user models are blended with; p: users who took the item of late",
    )
