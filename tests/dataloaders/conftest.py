from tests.coco_folder import folder, seven, two_folders  # noqa: F401 (fixtures)
