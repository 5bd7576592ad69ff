"""The frames of recipes/driving in time order: its table is used as it is."""

from recipes.driving.prepare import main

if __name__ == "__main__":
    main()
