"""The table of geometries: each recipe in it has one that keeps the contract, any other is of whole images."""

import pytest

from configs.data import DarknetAugmentation, TrainSplit
from dataloaders.compose.geometry import Geometry
from dataloaders.compose.recipes import GEOMETRIES, geometry_of, schedule_of_split
from official.vision.protocol import EvaluationProtocol


@pytest.mark.parametrize("recipe", GEOMETRIES)
def test_a_geometry_keeps_the_contract(recipe):
    geometry = GEOMETRIES[recipe](recipe(), (64, 96), EvaluationProtocol())
    assert isinstance(geometry, Geometry)
    assert sum(share for _, share in geometry.shares()) == pytest.approx(1)


@pytest.mark.parametrize("augmentation", [None, DarknetAugmentation(hue=0.1)])
def test_whole_images_have_no_geometry_and_one_image_a_position(folder, augmentation):
    split = TrainSplit(source=folder.source, batch_size=2, augmentation=augmentation)
    assert geometry_of(split, (64, 96), EvaluationProtocol()) is None
    schedule = schedule_of_split(split)
    assert schedule.makeups == ((1,),) and (schedule.examples, schedule.images, schedule.reuse) == (1, 1, 1)
